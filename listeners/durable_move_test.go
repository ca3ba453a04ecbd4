package listeners_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// names is a Keeper that keeps names only.
type names struct {
	mu   sync.Mutex
	have map[string]int
	most int
}

func (k *names) Store(name string, _ int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.have[name]++
}

func (k *names) StoreIfRoom(name string, fd int) bool {
	k.Store(name, fd)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.most = max(k.most, len(k.have))
	return true
}

func (k *names) Remove(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.have, name)
}

func (k *names) Wait(context.Context) error { return nil }

// Durable connections move with their slots, byte for byte, and stay durable; when
// they end the keeper has nothing of them any more.
func TestResumeDurable(t *testing.T) {
	keeper := &names{have: map[string]int{}}
	kept, _ := listeners.NewKept(keeper, nil)
	m := newKeptMover(t, kept)
	forward := &listeners.Forward{Upstreams: []listeners.Upstream{{Address: echoServer(t)}}}
	m.open("echo", spec(t, listeners.Echo{}, "durability=connections", "tcp://127.0.0.1:0"))
	m.open("forward", spec(t, forward, "durability=connections", "tcp://127.0.0.1:0"))
	var clients sync.WaitGroup
	for name := range m.ls {
		to := m.addr(name)
		for i := range 4 {
			c, err := net.Dial(to.Network(), to.String())
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			clients.Go(func() {
				defer c.Close()
				stream(t, c, 1<<20, i%2 == 1)
			})
		}
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	moves := 0
	for over := false; !over; moves++ {
		m.move(moves%5 == 4)
		timer := time.NewTimer(5 * time.Millisecond)
		select {
		case <-done:
			over = true
		case <-timer.C:
		}
	}
	for name := range m.ls {
		eventually(t, func() bool { return m.status(name).Active == 0 }, func() string { return name + " has connections" })
	}
	keeper.mu.Lock()
	defer keeper.mu.Unlock()
	left := slices.DeleteFunc(slices.Collect(maps.Keys(keeper.have)), func(name string) bool { return !strings.HasPrefix(name, "@") })
	t.Logf("%d moves, at most %d kept, at the end %v", moves, keeper.most, left)
	if len(left) != 1 || left[0] != "@a0" || keeper.most < 4 {
		t.Errorf("the keeper has %v; it had at most %d", left, keeper.most)
	}
}
