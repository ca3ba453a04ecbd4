package listeners_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// wantClosed waits until no connection is open, and wants one reason for all.
func (h *host) wantClosed(l *listeners.Listener, counters func() listeners.Counters, why listeners.CloseReason, n uint64) {
	h.t.Helper()
	eventually(h.t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
	if c := counters(); c.ClosedBy[why] != n {
		h.t.Errorf("closed by %v: %d of %d: %v", why, c.ClosedBy[why], n, c.ClosedBy)
	}
}

// A connection ends when it is so old, however busy it is, and what it was owed
// is sent. Those that are open when the age is set are as old as they are.
func TestMaxAge(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l, counters := h.openCounted(spec(t, listeners.Echo{}, "max_age=150ms", "tcp://127.0.0.1:0"))
		idle, busy := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
		began := time.Now()
		for {
			if _, err := io.WriteString(busy, "x"); err != nil {
				break
			}
			if n, err := busy.Read(make([]byte, 100)); n == 0 || err != nil {
				break
			}
		}
		if took := time.Since(began); took < 100*time.Millisecond || took > 5*time.Second {
			t.Errorf("closed after %v", took)
		}
		if rest, err := io.ReadAll(idle); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
		idle.Close()
		busy.Close()
		h.wantClosed(l, counters, listeners.ClosedByAge, 2)

		h.tune(l, "max_age", "0")
		c := dial(t, h.addr(l, 0))
		ask(t, c, []byte("x"))
		h.until(20 * time.Millisecond)
		ask(t, c, []byte("x"))
		h.tune(l, "max_age", "20ms")
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
		c.Close()
		h.wantClosed(l, counters, listeners.ClosedByAge, 3)
	})
}

// http ends a connection between two requests, lets one that is under way have
// its answer, and what does not end has the time of a drain.
func TestMaxAgeHTTP(t *testing.T) {
	grace := 2 * time.Second // of which one at rest takes one
	eachWay(t, func(t *testing.T, h *host) {
		s, err := spec(t, &listeners.HTTP{Body: []byte("hello\n")}, "max_age=150ms", "tcp://127.0.0.1:0").WithPolicy(listeners.NotPaused, listeners.DrainPolicy{Timeout: &grace})
		if err != nil {
			t.Fatal(err)
		}
		l, counters := h.openCounted(s)
		asks, hangs, rests := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0)) // that one is not older than the others
		began := time.Now()
		io.WriteString(rests, get)
		io.WriteString(asks, strings.TrimSuffix(get, "\r\n"))
		io.WriteString(hangs, "GET / HTTP/1.1\r\n")
		if all, err := io.ReadAll(rests); err != nil || !strings.HasSuffix(string(all), "hello\n") || strings.Contains(string(all), "Connection: close") {
			t.Errorf("%q, %v", all, err)
		}
		io.WriteString(asks, "\r\n")
		if all, err := io.ReadAll(asks); err != nil || !strings.HasSuffix(string(all), "hello\n") || !strings.Contains(string(all), "Connection: close") {
			t.Errorf("%q, %v", all, err)
		}
		rests.Close()
		asks.Close()
		if all, _ := io.ReadAll(hangs); len(all) > 0 {
			t.Errorf("%q", all)
		}
		if took := time.Since(began); took < 2100*time.Millisecond || took > 8*time.Second {
			t.Errorf("the last was closed after %v", took)
		}
		h.wantClosed(l, counters, listeners.ClosedByAge, 3)
	})
}
