package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// rebind gives a listener another spec, as the manager does.
func (h *host) rebind(l *listeners.Listener, next listeners.Spec, resume bool) {
	h.t.Helper()
	var shares []listeners.Share
	var err error
	h.do(func() { shares, err = l.Share(next, resume) })
	if err != nil {
		h.t.Fatal(err)
	}
	fresh := next
	fresh.Listen = next.Beyond(l.Spec())
	opened, err := listeners.Open("test", fresh, shares...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.do(func() {
		err := l.Extend(opened)
		if err == nil && resume {
			err = l.Resume()
		}
		if err != nil {
			h.t.Error(err)
		}
		l.Settle(next)
	})
}

// The sockets of a listener are replaced, again and again, while clients
// connect without a pause: none is refused, none is reset.
func TestRebindLosesNothing(t *testing.T) {
	h := newHost(t, "epoll", 0)
	addresses := []string{"tcp://127.0.0.1:0", "tcp://[::1]:0", "udp://127.0.0.1:0"}
	plain := spec(t, listeners.Echo{}, "backlog=4096", addresses...)
	free := spec(t, listeners.Echo{}, "backlog=4096 ip.free_bind=true", addresses...)
	l := h.open(plain)
	before := h.status(l)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var done atomic.Int64
	for i := range 8 {
		to := h.addr(l, i%2)
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := once(to); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	const rounds = 4
	for i := range rounds {
		next := plain
		if i%2 == 0 {
			next = free
		}
		h.rebind(l, next, false)
		target := done.Load() + 200
		eventually(t, func() bool { return done.Load() > target || t.Failed() }, func() string { return "no traffic" })
		st := h.status(l)
		for j, s := range st.Sockets {
			if s.Inode == before.Sockets[j].Inode || s.Local != before.Sockets[j].Local {
				t.Errorf("%+v, was %+v", s, before.Sockets[j])
			}
			if on, err := unix.GetsockoptInt(s.FD, unix.IPPROTO_IP, unix.IP_FREEBIND); err != nil || (on == 1) != (i%2 == 0) {
				t.Errorf("IP_FREEBIND is %d, %v", on, err)
			}
		}
		before = st
	}
	// The old ones go, and the group with them.
	eventually(t, func() bool {
		for _, s := range h.status(l).Sockets {
			if on, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || on == 1 {
				return false
			}
		}
		return true
	}, func() string { return "SO_REUSEPORT is left on" })
	stop()
	wg.Wait()
	ask(t, dial(t, h.addr(l, 2)), []byte("x"))
	t.Logf("%d connections over %d changes", done.Load(), rounds)
}

// once connects, is echoed, and closes.
func once(to net.Addr) error {
	c, err := net.Dial(to.Network(), to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		return fmt.Errorf("%q, %w", got, err)
	}
	return nil
}

// Datagrams of a client that goes on are lost neither.
func TestRebindUDP(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	for i := range 200 {
		if i%50 == 25 {
			h.rebind(l, spec(t, listeners.Echo{}, fmt.Sprintf("ip.free_bind=%v", i%100 == 25), "udp://127.0.0.1:0"), false)
		}
		if got := ask(t, c, []byte(fmt.Sprint(i))); string(got) != fmt.Sprint(i) {
			t.Fatalf("%d: %q", i, got)
		}
	}
}

// A rebind that is not gone through with leaves the old sockets, and those who
// came to the new ones are served.
func TestRebindUndone(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		before := spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0")
		after := spec(t, listeners.Echo{}, "ip.free_bind=true", "tcp://127.0.0.1:0")
		l := h.open(before)
		was := h.status(l)
		var shares []listeners.Share
		h.do(func() {
			var err error
			if shares, err = l.Share(after, false); err != nil {
				t.Error(err)
			}
		})
		opened, err := listeners.Open("test", after, shares...)
		if err != nil {
			t.Fatal(err)
		}
		var conns []net.Conn
		for range 40 { // the kernel shares them out
			conns = append(conns, dial(t, h.addr(l, 0)))
		}
		h.do(func() {
			if err := l.Extend(opened); err != nil {
				t.Error(err)
			}
			l.Unshare()
			l.Settle(before)
		})
		for range 40 {
			conns = append(conns, dial(t, h.addr(l, 0)))
		}
		for _, c := range conns {
			ask(t, c, []byte("x"))
		}
		if st := h.status(l); len(st.Sockets) != 1 || st.Sockets[0].Inode != was.Sockets[0].Inode {
			t.Errorf("%+v", st.Sockets)
		}
		h.do(func() { l.Stop(0) }) // while the new one is on its way out
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
		if c, err := net.Dial("tcp", was.Bound[0].IP.String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
