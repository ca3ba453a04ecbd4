package listeners_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// eachDatagram opens what answers datagrams, and what relays them to it.
func eachDatagram(t *testing.T, options string, f func(t *testing.T, h *host, l *listeners.Listener)) {
	t.Helper()
	eachPoller(t, func(t *testing.T, h *host) {
		up := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
		for name, l := range map[string]*listeners.Listener{
			"echo":    h.open(spec(t, listeners.Echo{}, options, "udp://127.0.0.1:0")),
			"forward": h.open(spec(t, forwardTo(h.addr(up, 0)), options, "udp://[::1]:0")),
		} {
			t.Run(name, func(t *testing.T) {
				f(t, &host{t: t, loop: h.loop, set: h.set, changes: h.changes}, l)
			})
		}
	})
}

// silent wants nothing to come.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := c.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
}

// Datagrams are lost by chance, all or none at the ends of the scale, each way,
// and what is dropped is counted.
func TestFaultLoss(t *testing.T) {
	eachDatagram(t, "fault.loss_percent=100", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dial(t, h.addr(l, 0))
		for i, direction := range []string{"both", "read", "write"} {
			h.tune(l, "fault.direction", direction)
			c.Write([]byte("lost"))
			eventually(t, func() bool { return h.stats(l).Rejected == uint64(i+1) }, func() string { return fmt.Sprint(h.stats(l)) })
			silent(t, c)
		}
		h.tune(l, "fault.loss_percent", "0")
		for i := range 100 {
			if got := ask(t, c, fmt.Append(nil, i)); string(got) != fmt.Sprint(i) {
				t.Fatalf("%q, want %d", got, i)
			}
		}
		h.tune(l, "fault.direction", "write")
		h.tune(l, "fault.loss_percent", "50")
		before := h.stats(l)
		for i := range uint64(400) {
			c.Write([]byte("x"))
			if i%20 == 19 { // lest the kernel drops some
				eventually(t, func() bool { return h.stats(l).Received == before.Received+i+1 }, func() string { return fmt.Sprint(h.stats(l)) })
			}
		}
		eventually(t, func() bool {
			st := h.stats(l)
			return st.Sent-before.Sent+st.Rejected-before.Rejected == 400
		}, func() string { return fmt.Sprint(h.stats(l)) })
		if n := h.stats(l).Rejected - before.Rejected; n < 100 || n > 300 {
			t.Errorf("%d of 400 are lost", n)
		}
	})
}

// Datagrams are held, each way, in order and bounded; those held go on when the
// fault is off.
func TestFaultDatagramDelay(t *testing.T) {
	eachDatagram(t, "fault.delay=30ms", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dial(t, h.addr(l, 0))
		atLeast(t, 60*time.Millisecond, func() {
			for i := range 5 {
				c.Write([]byte{byte(i)})
			}
			for i := range 5 {
				if got := receive(t, c); len(got) != 1 || got[0] != byte(i) {
					t.Errorf("%v, want %d", got, i)
				}
			}
		})
		h.tune(l, "fault.delay", "1h")
		c.Write([]byte("held"))
		silent(t, c)
		h.tune(l, "fault.delay", "0")
		if got := receive(t, c); string(got) != "held" {
			t.Errorf("%q", got)
		}
		h.tune(l, "write_buffer_bytes", "4KiB")
		h.tune(l, "fault.delay", "1h")
		for range 10 {
			c.Write(make([]byte, 1000))
		}
		eventually(t, func() bool { return h.stats(l).Rejected >= 7 }, func() string { return fmt.Sprint(h.stats(l)) })
	})
}

// A share of the sources is hit.
func TestFaultSources(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "fault.loss_percent=100 fault.share_percent=50", "udp://127.0.0.1:0"))
	const sources = 200
	for i := range uint64(sources) {
		c := dial(t, h.addr(l, 0))
		c.Write([]byte{0})
		c.Write([]byte{1})
		eventually(t, func() bool { return h.stats(l).Received == 2*(i+1) }, func() string { return fmt.Sprint(h.stats(l)) })
	}
	if n := h.stats(l).Rejected; n%2 != 0 || n < 120 || n > 280 { // all of a source, or none
		t.Errorf("%d datagrams of %d sources are lost", n, sources)
	}
}
