package listeners_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

const (
	get      = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	longTime = 24 * time.Hour // longer than any test
)

// answer reads one HTTP response.
func answer(t *testing.T, c net.Conn, r *bufio.Reader) httpAnswer {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("%v: %v", c.LocalAddr(), err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%v: %v", c.LocalAddr(), err)
	}
	resp.Body.Close()
	return httpAnswer{resp.StatusCode, resp.Close, body}
}

// httpAnswer is a response that has been read whole.
type httpAnswer struct {
	status int
	closes bool
	body   []byte
}

// ends wants c to be closed, with nothing more to read.
func ends(t *testing.T, what string, c net.Conn, r io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("%s: %q, %v", what, rest, err)
	}
	c.Close()
}

// A drain closes HTTP connections at rest soon, and what they ask before that is
// answered; the others finish what they have begun, are told that it was the
// last, and nothing of it is lost.
func TestDrainHTTP(t *testing.T) {
	oneLoop(t) // what is in the kernel when the drain begins is not told of several
	body := bytes.Repeat([]byte("x"), 1<<17)
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.HTTP{Body: body}, "send_buffer_bytes=8KiB", "tcp://127.0.0.1:0"))
		open := func(send string) (net.Conn, *bufio.Reader) {
			c := dialSmall(t, h.addr(l, 0))
			io.WriteString(c, send)
			return c, bufio.NewReader(c)
		}
		rest, restR := open(get)
		answer(t, rest, restR)
		silent, silentR := open("")
		busy, busyR := open(get)
		answer(t, busy, busyR)
		head, headR := open(get[:10])
		second, secondR := open(get + get[:10])
		answer(t, second, secondR)
		upload, uploadR := open("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello")
		sending, sendingR := open(get)
		eventually(t, func() bool {
			begun, owed := 0, 0
			for _, c := range h.conns() {
				if c.Received > 0 {
					begun++
				}
				if c.Queue.UserSend > 0 {
					owed++
				}
			}
			return begun == 6 && owed == 1 && h.status(l).Active == 7
		}, func() string { return "not begun" })
		unread := dial(t, h.addr(l, 0))
		eventually(t, func() bool { return h.status(l).Active == 8 }, func() string { return "not accepted" })
		h.do(func() {
			io.WriteString(unread, get) // in the kernel, and not read when the drain begins
			l.Stop(longTime)
		})
		finish := func(what string, c net.Conn, r *bufio.Reader, send string, closes bool) {
			t.Helper()
			io.WriteString(c, send)
			resp := answer(t, c, r)
			if resp.status != http.StatusOK || resp.closes != closes || !bytes.Equal(resp.body, body) {
				t.Errorf("%s: %d, %d bytes, closes %v", what, resp.status, len(resp.body), resp.closes)
			}
			ends(t, what, c, r)
		}
		finish("at work", busy, busyR, get, true) // after the drain began
		ends(t, "at rest", rest, restR)
		ends(t, "silent", silent, silentR)
		finish("in the head", head, headR, get[10:], true)
		finish("in the second head", second, secondR, get[10:], true)
		finish("in the body", upload, uploadR, "world", true)
		finish("unread", unread, bufio.NewReader(unread), "", true)
		finish("being answered", sending, sendingR, "", false) // it was told otherwise
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return fmt.Sprintf("%+v", h.status(l)) })
	})
}

// HTTP clients that waited to be accepted get one answer each, also those that
// are accepted in later turns, and those that say nothing at first.
func TestDrainHTTPQueued(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.HTTP{Body: []byte("hello")}, "max_connections=1", "tcp://127.0.0.1:0"))
		first := dial(t, h.addr(l, 0))
		io.WriteString(first, get)
		firstR := bufio.NewReader(first)
		answer(t, first, firstR)
		var conns []net.Conn
		for i := range 150 {
			c := dial(t, h.addr(l, 0))
			if i%2 == 0 {
				io.WriteString(c, get)
			}
			conns = append(conns, c)
		}
		h.do(func() { l.Stop(longTime) })
		ends(t, "at rest", first, firstR)
		for i, c := range conns {
			if i%2 != 0 {
				io.WriteString(c, get)
			}
			r := bufio.NewReader(c)
			if resp := answer(t, c, r); resp.status != http.StatusOK || !resp.closes {
				t.Fatalf("connection %d: %d, closes %v", i, resp.status, resp.closes)
			}
			ends(t, "queued", c, r)
		}
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return fmt.Sprintf("%+v", h.status(l)) })
	})
}

// What is not through by the deadline is closed, and not before.
func TestDrainDeadlines(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		const drain = 50 * time.Millisecond
		for name, handler := range map[string]listeners.HandlerSpec{"echo": listeners.Echo{}, "http": &listeners.HTTP{}} {
			l := h.open(spec(t, handler, "", "tcp://127.0.0.1:0", "unix://@sockmgr-drain"))
			conns := []net.Conn{dial(t, h.addr(l, 0)), dial(t, h.addr(l, 1))}
			for _, c := range conns {
				io.WriteString(c, "G")
			}
			eventually(t, func() bool { return h.stats(l).Received == 2 }, func() string { return "not received" })
			begin := time.Now()
			h.do(func() {
				l.Stop(drain)
				if st := l.Status(false); st.State != listeners.Draining || st.Drain.Until.Before(begin) || st.Active != 2 {
					t.Errorf("%+v", st)
				}
			})
			for _, c := range conns {
				if got, err := io.ReadAll(c); err != nil || strings.Trim(string(got), "G") != "" {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
			if d := time.Since(begin); d < drain {
				t.Errorf("%s: closed after %v", name, d)
			}
			eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
		}
	})
}

// A second stop may make a drain shorter, never longer.
func TestStopTwice(t *testing.T) {
	oneLoop(t) // with several it is closed a moment later
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(l, 0))
		ask(t, c, []byte("x"))
		h.do(func() {
			l.Stop(time.Hour)
			first := l.Status(false).Drain.Until
			l.Stop(2 * time.Hour)
			if until := l.Status(false).Drain.Until; !until.Equal(first) {
				t.Errorf("longer: %v, then %v", first, until)
			}
			l.Stop(time.Minute)
			if until := l.Status(false).Drain.Until; !until.Before(first) {
				t.Errorf("shorter: %v, then %v", first, until)
			}
		})
		ask(t, c, []byte("still served"))
		h.do(func() { l.Stop(10 * time.Millisecond) })
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("%q, %v", got, err)
		}
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
		h.do(func() { l.Stop(time.Hour); l.Stop(0) }) // no more to do

		l = h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		c = dial(t, h.addr(l, 0))
		ask(t, c, []byte("x"))
		h.do(func() {
			l.Stop(time.Hour)
			l.Stop(0)
			if st := l.State(); st != listeners.Closed {
				t.Errorf("state %v", st)
			}
		})
	})
}

// A listener without connections is closed at once, whatever time it has, and
// its port is free.
func TestStopIdle(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		for _, drain := range []time.Duration{0, longTime} {
			l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "unixpacket://@sockmgr-idle"))
			st := h.status(l)
			h.do(func() {
				l.Stop(drain)
				if l.State() != listeners.Closed {
					t.Errorf("state %v", l.State())
				}
			})
			again := make([]string, len(st.Bound))
			for i, a := range st.Bound {
				again[i] = a.String()
			}
			second, err := listeners.Open("again", spec(t, listeners.Echo{}, "", again...))
			if err != nil {
				t.Fatal(err)
			}
			second.Close()
		}
	})
}

// The states that whoever watches is told are those of the drawing.
func TestStates(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	ask(t, c, []byte("x"))
	second := dial(t, h.addr(l, 0))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	want := func(states ...listeners.State) {
		t.Helper()
		for _, s := range states {
			select {
			case got := <-h.changes:
				if got != s {
					t.Errorf("state %v, want %v", got, s)
				}
			case <-ctx.Done():
				t.Fatalf("no change to %v", s)
			}
		}
	}
	want(listeners.Limited) // that it runs, who attaches it knows
	c.Close()
	ask(t, second, []byte("x"))
	third := dial(t, h.addr(l, 0))
	want(listeners.Running, listeners.Limited)
	h.do(func() { l.Stop(longTime) })
	ask(t, third, []byte("x"))
	second.Close()
	third.Close()
	want(listeners.Draining, listeners.Closed)
}

// A stop while nothing can be accepted resets what waits, and leaves nothing.
func TestStopWhileHungry(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		h = newHost(t, h.loop.Poller(), 2)
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		first := dial(t, h.addr(l, 0))
		ask(t, first, []byte("x"))
		waiting := dial(t, h.addr(l, 0))
		eventually(t, func() bool { return h.status(l).Sockets[0].Waits == 0 }, func() string { return "still accepting" })
		h.do(func() { l.Stop(longTime) })
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		ask(t, first, []byte("still served"))
		first.Close()
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
	})
}
