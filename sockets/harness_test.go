package sockets

import (
	"context"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

var (
	me   = Caller{Name: "uid:1"}
	you  = Caller{Name: "uid:2"}
	root = Caller{Name: "uid:0", Admin: true}
)

// A bench is a table on a loop, for one test, which ends by counting descriptors
// and goroutines.
type bench struct {
	*Table
	t   testing.TB
	ctx context.Context
}

func newBench(tb testing.TB, poller string, owned int) *bench {
	tb.Helper()
	noLeaks(tb)
	p, err := mux.NewPoller(poller)
	if err != nil {
		tb.Fatal(err)
	}
	loop, err := mux.NewLoop(p)
	if err != nil {
		tb.Fatal(err)
	}
	set := listeners.NewSet(listeners.SetConfig{Loop: loop, Log: hclog.NewNullLogger(), Changed: func(*listeners.Listener) {}})
	b := &bench{Table: New(Config{Loop: loop, Set: set, Log: hclog.NewNullLogger(), Owned: owned}), t: tb}
	ended := make(chan error, 1)
	go func() { ended <- loop.Run() }()
	tb.Cleanup(func() {
		b.Close()
		loop.Stop()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
		set.Close()
		loop.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	tb.Cleanup(cancel)
	b.ctx = ctx
	return b
}

// eachPoller runs a test with each of them.
func eachPoller(t *testing.T, f func(*bench)) {
	t.Helper()
	for _, poller := range mux.Pollers() {
		t.Run(poller, func(t *testing.T) { f(newBench(t, poller, 0)) })
	}
}

func noLeaks(tb testing.TB) {
	tb.Helper()
	if c, err := net.Dial("unix", "@nobody-is-there"); err == nil { // wakes the runtime's own poller
		c.Close()
	}
	fds, goroutines := countFDs(tb), runtime.NumGoroutine()
	tb.Cleanup(func() {
		eventually(tb, func() bool { return countFDs(tb) <= fds && runtime.NumGoroutine() <= goroutines })
	})
}

func countFDs(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(entries)
}

// eventually waits for what the kernel or a goroutine does in its own time.
func eventually(tb testing.TB, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			tb.Error("it does not come to be")
			return
		}
	}
}

// id makes a socket.
func (b *bench) id(who Caller, n listeners.Network) string {
	b.t.Helper()
	st, err := b.Create(b.ctx, who, Spec{Network: n})
	if err != nil {
		b.t.Fatal(err)
	}
	return name(st)
}

func name(st Status) string { return (&Socket{id: st.Cookie}).name() }

// server makes a socket that listens.
func (b *bench) server() (id, uri string) {
	b.t.Helper()
	id = b.id(me, listeners.TCP)
	local, err := b.Bind(b.ctx, me, id, "tcp://127.0.0.1:0")
	if err == nil {
		_, err = b.Listen(b.ctx, me, id, 0)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return id, local.String()
}

// pair is a connection between two sockets.
func (b *bench) pair() (x, y string) {
	b.t.Helper()
	server, uri := b.server()
	x = b.id(me, listeners.TCP)
	if _, err := b.Connect(b.ctx, me, x, uri); err != nil {
		b.t.Fatal(err)
	}
	st, err := b.Accept(b.ctx, me, server)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.CloseSocket(b.ctx, me, server); err != nil {
		b.t.Fatal(err)
	}
	return x, name(st)
}

// loopDo runs f on the loop.
func (b *bench) loopDo(f func()) {
	b.t.Helper()
	if err := b.on(b.ctx, func() error { f(); return nil }); err != nil {
		b.t.Fatal(err)
	}
}
