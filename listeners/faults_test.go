package listeners_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// atLeast wants f to take so long or longer.
func atLeast(t *testing.T, least time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took < least {
		t.Errorf("took %v, want %v or more", took, least)
	}
}

// faulty opens listeners whose answer is what they are sent, each with what
// options there are: served by the loop, relayed, and on a Unix socket.
func (h *host) faulty(options string) map[string]*listeners.Listener {
	up := h.open(spec(h.t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	return map[string]*listeners.Listener{
		"echo":    h.open(spec(h.t, listeners.Echo{}, options, "tcp://127.0.0.1:0")),
		"forward": h.open(spec(h.t, forwardTo(h.addr(up, 0)), options, "tcp://127.0.0.1:0")),
		"unix":    h.open(spec(h.t, listeners.Echo{}, options, "unix://"+shortDir(h.t)+"/s")),
		"thread":  h.open(inThread(h.t, spec(h.t, listeners.Echo{}, options, "tcp://127.0.0.1:0"))),
		"threads": h.open(inThread(h.t, spec(h.t, forwardTo(h.addr(up, 0)), options, "tcp://127.0.0.1:0"))),
	}
}

func eachFaulty(t *testing.T, options string, f func(t *testing.T, h *host, l *listeners.Listener)) {
	t.Helper()
	eachPoller(t, func(t *testing.T, h *host) {
		for name, l := range h.faulty(options) {
			t.Run(name, func(t *testing.T) {
				h := &host{t: t, loop: h.loop, set: h.set, workers: h.workers, changes: h.changes}
				f(t, h, l)
			})
		}
	})
}

// What is held comes so much later, each way, the end of the stream too.
func TestFaultDelay(t *testing.T) {
	eachFaulty(t, "fault.delay=30ms fault.jitter=5ms", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dial(t, h.addr(l, 0)).(halfCloser)
		atLeast(t, 60*time.Millisecond, func() { ask(t, c, []byte("x")) })
		if st := h.conns(); len(st) == 0 || !slices.ContainsFunc(st, func(c listeners.ConnStatus) bool { return c.Faults == "delay, jitter" }) {
			t.Errorf("%+v", st)
		}
		h.tune(l, "fault.direction", "write")
		atLeast(t, 30*time.Millisecond, func() { ask(t, c, []byte("x")) })
		atLeast(t, 30*time.Millisecond, func() {
			c.CloseWrite()
			if got, err := readEnd(c); err != nil || got != "" {
				t.Errorf("%q, %v", got, err)
			}
		})
	})
}

// Whatever the faults do to a stream, its bytes are those that were sent, in
// order, also while faults come and go.
func TestFaultOrder(t *testing.T) {
	const size = 1 << 20
	eachFaulty(t, "fault.delay=2ms fault.jitter=10ms fault.slice_bytes=4001 write_buffer_bytes=64KiB", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dial(t, h.addr(l, 0))
		type sent struct {
			sum [32]byte
			err error
		}
		wrote := make(chan sent)
		go func() {
			sum, err := send(c, 7, size)
			wrote <- sent{sum, errors.Join(err, c.(halfCloser).CloseWrite())}
		}()
		read := make(chan struct{})
		var n int64
		var sum [32]byte
		var err error
		go func() {
			defer close(read)
			n, sum, err = hashed(c)
		}()
		for _, change := range []string{"fault.jitter=1ms", "fault.delay=0", "fault.slice_bytes=0", "fault.jitter=0", "fault.delay=1ms", "fault.share_percent=0", "fault.share_percent=100", "fault.slice_bytes=1000"} {
			name, value, _ := strings.Cut(change, "=")
			h.tune(l, name, value)
			h.until(3 * time.Millisecond)
		}
		s := <-wrote
		<-read
		if s.err != nil || err != nil || n != size || sum != s.sum {
			t.Errorf("%d bytes, %v, %v; the same: %v", n, s.err, err, sum == s.sum)
		}
	})
}

// Faults hit a connection that is open, and leave it alone again.
func TestFaultsLive(t *testing.T) {
	eachFaulty(t, "", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dial(t, h.addr(l, 0))
		ask(t, c, []byte("x"))
		h.tune(l, "fault.delay", "25ms")
		atLeast(t, 50*time.Millisecond, func() { ask(t, c, []byte("x")) })
		if st := h.status(l); st.Faults != "delay" {
			t.Errorf("%q", st.Faults)
		}
		h.tune(l, "fault.delay", "1h")
		c.Write([]byte("held"))
		eventually(t, func() bool { return strings.Contains(fmt.Sprint(held(h)), "4") }, func() string { return "not held" })
		h.tune(l, "fault.delay", "0") // which lets go
		if got := receive(t, c); string(got) != "held" {
			t.Errorf("%q", got)
		}
		h.tune(l, "fault.cut_off", "true")
		c.Write([]byte("cut"))
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v", n, err)
		}
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		h.tune(l, "fault.cut_off", "false")
		if got := receive(t, c); string(got) != "cut" {
			t.Errorf("%q", got)
		}
		if st := h.status(l); st.Faults != "" {
			t.Errorf("%q", st.Faults)
		}
		for _, st := range h.conns() {
			if st.Faults != "" {
				t.Errorf("%+v", st)
			}
		}
	})
}

// held is how many bytes connections keep in the daemon.
func held(h *host) (all []uint64) {
	for _, st := range h.conns() {
		all = append(all, st.Queue.UserReceive)
	}
	return all
}

// A share of connections is hit, by what does not change: another fault hits
// the same ones, and a larger share those too.
func TestFaultShare(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "fault.share_percent=50 fault.delay=1h", "tcp://127.0.0.1:0"))
	for range 200 {
		dial(t, h.addr(l, 0))
	}
	eventually(t, func() bool { return h.status(l).Active == 200 }, func() string { return "not all are accepted" })
	hit := func(on string) map[uint64]bool {
		m := map[uint64]bool{}
		for _, st := range h.conns() {
			if st.Faults == on {
				m[st.Cookie] = true
			}
		}
		return m
	}
	first := hit("delay")
	if n := len(first); n < 60 || n > 140 {
		t.Errorf("%d of 200 are hit", n)
	}
	h.tune(l, "fault.cut_off", "true")
	h.tune(l, "fault.delay", "0")
	eventually(t, func() bool { return len(hit("cut_off")) == len(first) }, func() string { return fmt.Sprint(len(hit("cut_off"))) })
	for c := range hit("cut_off") {
		if !first[c] {
			t.Errorf("%x was not hit before", c)
		}
	}
	h.tune(l, "fault.share_percent", "80")
	eventually(t, func() bool { return len(hit("cut_off")) > len(first) }, func() string { return "no more are hit" })
	more := hit("cut_off")
	for c := range first {
		if !more[c] {
			t.Errorf("%x is not hit any more", c)
		}
	}
	h.tune(l, "fault.share_percent", "0")
	eventually(t, func() bool { return len(hit("")) == 200 }, func() string { return "some are hit still" })
}

// A reset is one, at once or after bytes; a close is the end of the stream.
func TestFaultEnds(t *testing.T) {
	for _, tt := range []struct {
		options string
		reset   bool
		least   time.Duration
		most    int // bytes that come back
	}{
		{"fault.reset_after=30ms", true, 30 * time.Millisecond, 0},
		{"fault.close_after=30ms", false, 30 * time.Millisecond, 0},
		{"fault.cut_off=true fault.close_after=30ms", false, 30 * time.Millisecond, 0},
		{"fault.close_after_bytes=1000 fault.direction=write", false, 0, 1000},
		{"fault.close_after_bytes=1000 fault.direction=read", false, 0, 1000},
		{"fault.close_after_bytes=1000", false, 0, 1000},
		{"fault.reset_after_bytes=1000 fault.direction=write", true, 0, 1000},
		{"fault.reset_after_bytes=1000 fault.direction=read", true, 0, 1000},
	} {
		t.Run(tt.options, func(t *testing.T) {
			eachFaulty(t, tt.options, func(t *testing.T, h *host, l *listeners.Listener) {
				w := &watched{}
				h.do(func() { h.set.WatchConns(w) })
				began := time.Now()
				c := dial(t, h.addr(l, 0))
				if tt.most > 0 {
					c.Write(make([]byte, 10_000))
				}
				got, err := readEnd(c)
				if tcp := c.LocalAddr().Network() == "tcp"; tt.reset && tcp {
					if !errors.Is(err, syscall.ECONNRESET) || len(got) > tt.most {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				} else if !tt.reset && (err != nil || len(got) != tt.most) {
					t.Errorf("%d bytes, %v; want %d", len(got), err, tt.most)
				}
				if took := time.Since(began); took < tt.least {
					t.Errorf("after %v", took)
				}
				c.Close()
				eventually(t, func() bool {
					return slices.ContainsFunc(w.seen(), func(st listeners.ConnStatus) bool { return st.Reason == listeners.ClosedByFault })
				}, func() string { return fmt.Sprint(w.seen()) })
			})
		})
	}
}

// seen are those that have closed so far.
func (w *watched) seen() []listeners.ConnStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.closed)
}

// The end of a stream is held, and what came before is not.
func TestFaultSlowClose(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.Reply{Payload: []byte("bye")}, "fault.slow_close=40ms", "tcp://127.0.0.1:0"))
		at := h.addr(l, 0)
		began := time.Now()
		c := dial(t, at)
		if got := receive(t, c); string(got) != "bye" {
			t.Errorf("%q", got)
		}
		got, err := readEnd(c)
		if err != nil || got != "" || time.Since(began) < 40*time.Millisecond {
			t.Errorf("%q, %v after %v", got, err, time.Since(began))
		}
	})
}

// Bytes come in pieces, with time between them, at a rate.
func TestFaultSlicesAndRate(t *testing.T) {
	eachFaulty(t, "fault.slice_bytes=10 fault.slice_delay=2ms fault.direction=write", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dial(t, h.addr(l, 0))
		atLeast(t, 18*time.Millisecond, func() {
			c.Write(make([]byte, 100))
			if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
				t.Error(err)
			}
		})
		h.tune(l, "fault.slice_bytes", "0")
		h.tune(l, "fault.rate_bytes", "10000")
		atLeast(t, 90*time.Millisecond, func() {
			c.Write(make([]byte, 2000))
			if _, err := io.ReadFull(c, make([]byte, 2000)); err != nil {
				t.Error(err)
			}
		})
		h.tune(l, "fault.rate_bytes", "0")
		ask(t, c, []byte("x"))
	})
}

// What nobody takes is bounded, and a connection that is held costs no turns.
func TestFaultBounds(t *testing.T) {
	eachFaulty(t, "fault.delay=1h write_buffer_bytes=16KiB send_buffer_bytes=16KiB receive_buffer_bytes=16KiB", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dialSmall(t, h.addr(l, 0))
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			io.Copy(c, zeros{})
		}()
		eventually(t, func() bool { return slices.Contains(held(h), 16<<10) }, func() string { return fmt.Sprint(held(h)) })
		if turns := h.turns(func() { h.until(100 * time.Millisecond) }); turns > 20 {
			t.Errorf("%d turns", turns)
		}
		c.Close()
		<-wrote
		for _, st := range h.conns() {
			h.do(func() { h.set.CloseConn(st.FD, st.Cookie, true) })
		}
	})
}

// A drain and a stop end what faults hold, at their deadline.
func TestFaultDrain(t *testing.T) {
	eachFaulty(t, "fault.delay=1h fault.slow_close=1h", func(t *testing.T, h *host, l *listeners.Listener) {
		var open []net.Conn
		for i := range 3 {
			c := dial(t, h.addr(l, 0)).(halfCloser)
			c.Write([]byte("x"))
			if i == 0 {
				c.CloseWrite()
			}
			open = append(open, c)
		}
		eventually(t, func() bool { return h.status(l).Active == 3 }, func() string { return "not accepted" })
		h.do(func() { l.Stop(30 * time.Millisecond) })
		for _, c := range open {
			if _, err := readEnd(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		}
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
	})
}

// http and chargen know nothing of it.
func TestFaultHandlers(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	eachPoller(t, func(t *testing.T, h *host) {
		const options = "fault.delay=5ms fault.jitter=5ms fault.slice_bytes=1000 fault.slow_close=5ms"
		web := h.open(spec(t, &listeners.HTTP{Body: body}, options, "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(web, 0))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		got, err := readEnd(c)
		if err != nil || strings.Count(got, string(body)) != 2 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		gen := h.open(spec(t, listeners.Chargen{}, options, "tcp://127.0.0.1:0"))
		if _, err := io.CopyN(io.Discard, dial(t, h.addr(gen, 0)), 300_000); err != nil {
			t.Error(err)
		}
	})
}

// Who has the descriptors cannot be given faults.
func TestFaultsRefused(t *testing.T) {
	for _, handler := range []listeners.HandlerSpec{&listeners.Handoff{Path: "/run/x"}, &listeners.Exec{Command: []string{"/bin/true"}}, &listeners.Remote{}} {
		_, err := listeners.ParseSpec([]string{"tcp://127.0.0.1:0"}, handler, map[string]listeners.Value{"fault.delay": listeners.StringValue("1s")})
		if v := listeners.Violations(err); len(v) != 1 || v[0].Field != "spec.options.fault.delay" || !strings.Contains(v[0].Message, handler.Kind()) {
			t.Errorf("%s: %v", handler.Kind(), err)
		}
	}
}

// A client that is gone while its bytes are held is noticed, relayed or not.
func TestFaultPeerGone(t *testing.T) {
	eachFaulty(t, "fault.delay=1h fault.direction=write", func(t *testing.T, h *host, l *listeners.Listener) {
		c := dial(t, h.addr(l, 0))
		c.Write([]byte("x"))
		eventually(t, func() bool { return h.stats(l).Received == 1 }, func() string { return "not received" })
		if tcp, ok := c.(*net.TCPConn); ok {
			if err := tcp.SetLinger(0); err != nil {
				t.Fatal(err)
			}
		} else {
			h.tune(l, "fault.delay", "0") // of a Unix socket's end nobody is told
		}
		c.Close()
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return fmt.Sprintf("%+v", h.conns()) })
	})
}

// inThread is s with a goroutine for each connection.
func inThread(t *testing.T, s listeners.Spec) listeners.Spec {
	t.Helper()
	s, err := s.WithConcurrency(listeners.InThread)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
