package listeners_test

import (
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// A program lives as long as the daemon, not as long as the thread that forked
// it: Go ends a thread with the goroutine that was locked to it.
func TestExecOutlivesThreads(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "", "tcp://127.0.0.1:0"))
	var clients []net.Conn
	for range 8 {
		c := dial(t, h.addr(l, 0))
		ask(t, c, []byte("x"))
		clients = append(clients, c)
	}
	for range 20 {
		var threads sync.WaitGroup
		locked := make(chan struct{})
		for range 20 {
			threads.Go(func() {
				runtime.LockOSThread() // and never unlock: the thread ends
				<-locked
			})
		}
		close(locked)
		threads.Wait()
	}
	for i, c := range clients {
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Error(i, err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("program %d has ended: %v", i, err)
		}
		c.Close()
	}
	eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not over" })
}
