package listeners_test

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// openCounted opens a listener of which the test has the counters.
func (h *host) openCounted(s listeners.Spec) (*listeners.Listener, func() listeners.Counters) {
	h.t.Helper()
	l, err := listeners.Open("test", s)
	if err != nil {
		h.t.Fatal(err)
	}
	counters := &listeners.Counters{}
	h.do(func() {
		if err := l.Attach(h.set, counters); err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(func() {
		h.do(func() { l.Stop(0) })
		eventually(h.t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "listener did not close" })
	})
	return l, func() (c listeners.Counters) {
		var shards []*listeners.Listener
		h.do(func() { c, shards = counters.Copy(true), l.Shards() })
		h.eachShard(shards, func(sh *listeners.Listener) { sh.AddTo(&c, true) })
		return c
	}
}

// Each connection is counted once at its beginning and once at its end, by what
// ended it.
func TestCounters(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l, counters := h.openCounted(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		if c := counters(); c.Times != nil {
			t.Error("there are histograms before there is a connection")
		}
		a, b := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
		ask(t, a, []byte("hello"))
		ask(t, b, []byte("hello"))
		a.Close()
		if err := b.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		b.Close()
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
		c := counters()
		if c.Accepted != 2 || c.ActivePeak != 2 || c.ClosedBy[listeners.ClosedByPeer] != 1 || c.ClosedBy[listeners.ClosedByReset] != 1 {
			t.Errorf("%+v", c)
		}
		if c.Errors[listeners.CallError{Call: "read", Errno: unix.ECONNRESET}] != 1 || len(c.Errors) != 1 {
			t.Errorf("%v", c.Errors)
		}
		times := c.Times
		if times.AcceptDelay.Count() != 2 || times.FirstByte.Count() != 2 || times.Duration.Count() != 2 || times.RTT.Count() == 0 {
			t.Errorf("%+v", times)
		}
		h.do(l.ResetPeaks)
		if c := counters(); c.Times != nil || c.ActivePeak != 0 || c.Accepted != 2 {
			t.Errorf("%+v", c)
		}
	})
}

// The accept delay of who waited in the kernel is how long it waited.
func TestAcceptDelay(t *testing.T) {
	const least = 120 * time.Millisecond
	h := newHost(t, "epoll", 0)
	l, counters := h.openCounted(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0"))
	first := dial(t, h.addr(l, 0))
	ask(t, first, []byte("x"))
	second := dial(t, h.addr(l, 0))
	h.until(least)
	first.Close()
	ask(t, second, []byte("x"))
	delay := counters().Times.AcceptDelay
	// A tick of the kernel's clock, 10 ms at most, is lost at either end.
	if got := time.Duration(delay.Max) * time.Microsecond; delay.Count() != 2 || got < least-20*time.Millisecond || got > 20*time.Second {
		t.Errorf("%v: %+v", got, delay)
	}
}

// First byte and life are as long as they were.
func TestTimes(t *testing.T) {
	const least = 50 * time.Millisecond
	h := newHost(t, "epoll", 0)
	l, counters := h.openCounted(spec(t, listeners.Echo{}, "", "unix://"+shortDir(t)+"/s"))
	c := dial(t, h.addr(l, 0))
	eventually(t, func() bool { return h.status(l).Active == 1 }, func() string { return "not accepted" })
	h.until(least)
	ask(t, c, []byte("x"))
	ask(t, c, []byte("y"))
	h.until(least)
	c.Close()
	eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
	times := counters().Times
	if times.FirstByte.Count() != 1 || times.FirstByte.Max < uint64(least/time.Microsecond) || times.Duration.Max < uint64(2*least/time.Millisecond) || times.RTT.Count() != 0 {
		t.Errorf("%+v", times)
	}
}

// Datagrams are counted in and out, and by why they got no answer.
func TestDatagramCounters(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l, counters := h.openCounted(spec(t, listeners.Echo{}, "", "udp4://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	for range 3 {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	dir := shortDir(t)
	g, gram := h.openCounted(spec(t, listeners.Echo{}, "", "unixgram://"+dir+"/g"))
	nameless := dial(t, h.addr(g, 0))
	if _, err := nameless.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return gram().Rejected == 1 }, func() string { return "not rejected" })
	if c := gram(); c.RejectedBy[listeners.RejectedUnanswerable] != 1 || c.ReceivedDatagrams != 1 || c.SentDatagrams != 0 || c.Times != nil {
		t.Errorf("%+v", c)
	}
	if c := counters(); c.ReceivedDatagrams != 3 || c.SentDatagrams != 3 || c.Rejected != 0 {
		t.Errorf("%+v", c)
	}
}
