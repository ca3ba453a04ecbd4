package listeners_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// A client that is held gets through when the upstream is back, though nobody
// checks it and no other client comes.
func TestForwardHeldUnchecked(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		nobody := gone(t)
		l := h.open(spec(t, forwardTo(nobody), "forward.wait=1h", "tcp://127.0.0.1:0"))
		client := dial(t, h.addr(l, 0))
		io.WriteString(client, "hello")
		dial(t, h.addr(l, 0)).Close() // leaves a gap
		eventually(t, func() bool { return !h.upstreams(l)[0].Healthy }, func() string { return "not down" })
		s := backend(t, "tcp", nobody.String())
		for got := make([]byte, 5); string(got) != "hello"; { // who left says nothing
			io.ReadFull(s.next(t), got)
		}
		if !h.upstreams(l)[0].Healthy {
			t.Error("still down")
		}
	})
}

// An upstream that a check has found down is tried again when it is checked no
// more.
func TestForwardUnchecked(t *testing.T) {
	h := newHost(t, "epoll", 0)
	nobody := gone(t)
	f := forwardTo(nobody)
	f.Health = &listeners.HealthCheck{Interval: 100 * time.Millisecond, Fall: 1}
	checked := spec(t, f, "", "tcp://127.0.0.1:0")
	l := h.open(checked)
	eventually(t, func() bool { return !h.upstreams(l)[0].Healthy }, func() string { return "not down" })
	unchecked := checked
	unchecked.Handler = forwardTo(nobody)
	h.do(func() { l.Settle(unchecked) })
	s := backend(t, "tcp", nobody.String())
	dial(t, h.addr(l, 0))
	s.next(t)
}

// A name that cannot be resolved is an upstream that is down, which is told and
// logged once.
func TestForwardNameUnknown(t *testing.T) {
	h := newHost(t, "epoll", 0)
	log, _ := h.loud()
	f := &listeners.Forward{Upstreams: []listeners.Upstream{{Address: "tcp://name.invalid:80"}}}
	l := h.open(spec(t, f, "", "tcp://127.0.0.1:0"))
	eventually(t, func() bool { return !h.upstreams(l)[0].Healthy }, func() string { return "not down" })
	c, err := net.Dial("tcp", h.addr(l, 0).String())
	if err == nil {
		_, err = io.ReadAll(c)
		c.Close()
	}
	if err == nil {
		t.Error("served by nobody")
	}
	if u := h.upstreams(l)[0]; u.LastError == "" || h.stats(l).Rejected != 1 {
		t.Errorf("%+v", u)
	}
	if n := strings.Count(log.String(), "upstream is left out: listener=test upstream=tcp://name.invalid:80"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log)
	}
}
