package listeners_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// watched collects what a ConnWatcher is told.
type watched struct {
	mu             sync.Mutex
	opened, closed []listeners.ConnStatus
}

func (w *watched) ConnOpened(st listeners.ConnStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened = append(w.opened, st)
}

func (w *watched) ConnClosed(st listeners.ConnStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = append(w.closed, st)
}

// take waits for n connections to have closed and returns them.
func (w *watched) take(t *testing.T, n int) (closed []listeners.ConnStatus) {
	t.Helper()
	eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.closed) < n {
			return false
		}
		closed, w.closed = w.closed, nil
		return true
	}, func() string { return "not closed" })
	return closed
}

// What ended a connection is told in one stable word, whatever came of it
// afterwards.
func TestCloseReason(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		w := &watched{}
		h.do(func() { h.set.WatchConns(w) })
		dir := shortDir(t)
		big := make([]byte, 8<<20)
		const closing = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
		for _, tt := range []struct {
			name, want, options string
			handler             listeners.HandlerSpec
			end                 func(c net.Conn, l *listeners.Listener)
		}{
			{"the peer says goodbye", "eof", "", listeners.Echo{}, func(c net.Conn, _ *listeners.Listener) { c.Close() }},
			{"the peer ends its half", "eof", "", listeners.Echo{}, func(c net.Conn, _ *listeners.Listener) {
				ask(t, c, []byte("x"))
				c.(halfCloser).CloseWrite()
				readEnd(c)
			}},
			{"a reply", "handler", "", &listeners.Reply{Payload: []byte("bye")}, func(c net.Conn, _ *listeners.Listener) { readEnd(c) }},
			{"a reply, then a reset", "handler", "", &listeners.Reply{Payload: []byte("bye")}, func(c net.Conn, _ *listeners.Listener) {
				readEnd(c)
				abort(c)
			}},
			{"the last response", "handler", "", &listeners.HTTP{}, func(c net.Conn, _ *listeners.Listener) {
				io.WriteString(c, closing)
				readEnd(c)
			}},
			{"no next request", "handler_timeout", "http.keepalive_timeout=1ms", &listeners.HTTP{}, func(c net.Conn, _ *listeners.Listener) {
				io.WriteString(c, get)
				readEnd(c)
			}},
			{"a slow request", "handler_timeout", "http.request_timeout=1ms", &listeners.HTTP{}, func(c net.Conn, _ *listeners.Listener) { readEnd(c) }},
			{"RST", "reset", "", listeners.Echo{}, func(c net.Conn, _ *listeners.Listener) {
				ask(t, c, []byte("x"))
				abort(c)
			}},
			{"RST before all was taken", "reset", "send_buffer_bytes=8KiB", &listeners.Reply{Payload: big}, func(c net.Conn, _ *listeners.Listener) {
				h.owes(c)
				abort(c)
			}},
			{"nothing moves", "idle_timeout", "idle_timeout=1ms", listeners.Echo{}, func(c net.Conn, _ *listeners.Listener) { readEnd(c) }},
			{"a stop", "drain", "", listeners.Echo{}, func(c net.Conn, l *listeners.Listener) {
				ask(t, c, []byte("x"))
				h.do(func() { l.Stop(0) })
			}},
			{"a drain that the handler heeds", "drain", "", &listeners.HTTP{}, func(c net.Conn, l *listeners.Listener) {
				io.WriteString(c, get)
				c.Read(make([]byte, 1))
				h.do(func() { l.Stop(1 << 40) })
				readEnd(c)
			}},
			{"a request", "closed_by", "", listeners.Echo{}, func(c net.Conn, _ *listeners.Listener) {
				ask(t, c, []byte("x"))
				h.do(func() { closeAll(h, false) })
				readEnd(c)
			}},
			{"a request for a reset", "closed_by", "", listeners.Echo{}, func(c net.Conn, _ *listeners.Listener) {
				ask(t, c, []byte("x"))
				h.do(func() { closeAll(h, true) })
			}},
			{"a request, while something is owed", "closed_by", "send_buffer_bytes=8KiB", &listeners.Reply{Payload: big, KeepOpen: true}, func(c net.Conn, _ *listeners.Listener) {
				h.owes(c)
				h.do(func() { closeAll(h, false) })
				readEnd(c)
			}},
		} {
			l := h.open(spec(t, tt.handler, tt.options, "tcp://127.0.0.1:0"))
			c := dialSmall(t, h.addr(l, 0))
			tt.end(c, l)
			c.Close()
			closed := w.take(t, 1)
			if st := closed[0]; len(closed) != 1 || st.CloseWord() != tt.want || st.State != listeners.ConnClosed || st.TCP == nil || st.Ended.Before(st.Opened) {
				t.Errorf("%s: %q, want %q: %+v", tt.name, st.CloseWord(), tt.want, st)
			}
			h.do(func() { l.Stop(0) })
		}

		packet := h.open(spec(t, listeners.Echo{}, "read_buffer_bytes=4KiB", "unixpacket://"+dir+"/p"))
		c := dial(t, h.addr(packet, 0))
		c.Write(big[:5000])
		if st := w.take(t, 1)[0]; st.Reason != listeners.ClosedBySize || st.CloseWord() != "too_long" || st.TCP != nil {
			t.Errorf("%+v", st)
		}

		h.do(func() { h.set.WatchConns(nil) })
		w.opened = nil
		ask(t, dial(t, h.addr(packet, 0)), []byte("x"))
		h.do(func() {
			if len(w.opened) > 0 {
				t.Error("told although nobody watches")
			}
		})
	})
}

// abort closes with RST.
func abort(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// Every reason has a word of its own, and an errno without one is named.
func TestCloseWords(t *testing.T) {
	seen := map[string]bool{}
	for r := range listeners.CloseReasons {
		word := listeners.CloseReason(r).String()
		if seen[word] || (word == "") != (r == 0) {
			t.Errorf("%d: %q", r, word)
		}
		seen[word] = true
	}
	st := listeners.ConnStatus{Reason: listeners.ClosedByError, Err: unix.ENOMEM}
	if got := st.CloseWord(); got != "error:ENOMEM" {
		t.Error(got)
	}
}
