package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// accept_rate lets the burst in at once, and then no more than the rate; who
// waits does so in the kernel, the loop takes few turns for it, and all are
// served in the end.
func TestAcceptRate(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		const rate, burst, clients = 50, 5, 30
		l := h.open(spec(t, listeners.Echo{}, fmt.Sprintf("accept_rate=%d accept_burst=%d", rate, burst), "tcp://127.0.0.1:0", "unix://"+shortDir(t)+"/s"))
		began := time.Now()
		var conns []net.Conn
		for i := range clients {
			conns = append(conns, dial(t, h.addr(l, i%2)))
		}
		turns := h.turns(func() {
			eventually(t, func() bool { return h.status(l).State == listeners.Limited }, func() string { return "not limited" })
			if st := h.status(l); !st.ByRate || st.Stats.Accepted > burst+uint64(time.Since(began).Seconds()*rate)+1 {
				t.Errorf("%+v after %v", st, time.Since(began))
			}
			for _, c := range conns {
				ask(t, c, []byte("x"))
			}
		})
		took := time.Since(began)
		if least := (clients - burst) * time.Second / rate; took < least || took > 2*least+time.Second {
			t.Errorf("%d connections took %v, at %d a second after %d it is %v", clients, took, rate, burst, least)
		}
		t.Logf("%d connections in %v, %d turns", clients, took, turns)
		for range cap(h.changes) { // told once, not at each rest
			select {
			case s := <-h.changes:
				if s != listeners.Limited {
					t.Error(s)
				}
				continue
			default:
			}
			break
		}
		eventually(t, func() bool { return h.status(l).State == listeners.Running }, func() string { return "limited for ever" })
		if st := h.status(l); st.Stats.Accepted != clients || st.Stats.Rejected != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// The rate changes live, for those who wait too.
func TestAcceptRateLive(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "accept_rate=1 accept_burst=1", "tcp://127.0.0.1:0"))
		conns := []net.Conn{dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))}
		ask(t, conns[0], []byte("x"))
		eventually(t, func() bool { return h.status(l).State == listeners.Limited }, func() string { return "not limited" })
		h.pause(l, listeners.Hold)
		h.tune(l, "accept_burst", "2")
		if n := h.status(l).Active; n != 1 {
			t.Errorf("%d connections while it is paused", n)
		}
		h.resume(l)
		ask(t, conns[1], []byte("x"))
		ask(t, conns[2], []byte("x"))
		if n := h.status(l).Active; n != 3 {
			t.Errorf("%d connections", n)
		}
		began := time.Now()
		h.tune(l, "accept_rate", "0")
		ask(t, conns[3], []byte("x"))
		if st := h.status(l); st.State != listeners.Running || time.Since(began) > 900*time.Millisecond {
			t.Errorf("%v after %v", st.State, time.Since(began))
		}
	})
}

// closedAtOnce wants a connection to be refused: what it wrote is not answered.
func closedAtOnce(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("not refused: %d, %v", n, err)
	}
	c.Close()
}

// Each source has as many connections as it may, and others are not in its
// way. What counts as one is changed live, and so is how many.
func TestMaxPerSource(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l, counters := h.openCounted(spec(t, listeners.Echo{}, "max_connections_per_source=2", "tcp://[::]:0", "unix://"+shortDir(t)+"/s"))
		to := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: h.addr(l, 0).(*net.TCPAddr).Port}
		in := func(from string) net.Conn {
			t.Helper()
			c := dialFrom(t, from, to)
			ask(t, c, []byte("x"))
			return c
		}
		a, b := in("127.0.0.1"), in("127.0.0.1")
		closedAtOnce(t, dialFrom(t, "127.0.0.1", to))
		c := in("127.0.0.2") // another one
		for range 3 {
			ask(t, dial(t, h.addr(l, 1)), []byte("x")) // of Unix sockets there is no source
		}
		a.Close()
		eventually(t, func() bool { return h.status(l).Active == 5 }, func() string { return "not closed" })
		a = in("127.0.0.1")
		closedAtOnce(t, dialFrom(t, "127.0.0.1", to))

		h.tune(l, "source_prefix_v4", "24") // now they are one, of three
		closedAtOnce(t, dialFrom(t, "127.0.0.9", to))
		d := in("127.0.1.1")
		h.tune(l, "max_connections_per_source", "4")
		e := in("127.0.0.9")
		closedAtOnce(t, dialFrom(t, "127.0.0.2", to))
		h.tune(l, "source_prefix_v4", "0") // all of IPv4
		closedAtOnce(t, dialFrom(t, "127.7.7.7", to))
		h.tune(l, "max_connections_per_source", "0")
		f := in("127.0.0.1")
		h.tune(l, "max_connections_per_source", "6") // those before count too
		closedAtOnce(t, dialFrom(t, "127.0.0.1", to))
		if n := counters().RejectedBy[listeners.RejectedSource]; n != 6 {
			t.Errorf("%d refused", n)
		}
		for _, open := range []net.Conn{a, b, c, d, e, f} {
			ask(t, open, []byte("x"))
			open.Close()
		}
		eventually(t, func() bool { return h.status(l).Active == 3 }, func() string { return "not closed" })
		var n int
		h.do(func() { n = l.Sources() })
		if n != 0 {
			t.Errorf("%d sources are kept for nothing", n)
		}
	})
}
