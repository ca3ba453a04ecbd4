package listeners_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// readEnd reads until the end and returns what came and how it ended.
func readEnd(c net.Conn) (string, error) {
	var b bytes.Buffer
	_, err := io.Copy(&b, c)
	return b.String(), err
}

// linger=0s makes every close a reset, whoever asks for it.
func TestLingerZero(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		reply := h.open(spec(t, &listeners.Reply{Payload: []byte("bye")}, "linger=0s", "tcp://127.0.0.1:0"))
		c, err := net.Dial("tcp", h.addr(reply, 0).String()) // may be reset before it is here
		got := ""
		if err == nil {
			defer c.Close()
			got, err = readEnd(c)
		}
		if !errors.Is(err, syscall.ECONNRESET) || got != "bye" && got != "" {
			t.Errorf("after a reply: %q, %v", got, err)
		}
		idle := h.open(spec(t, listeners.Echo{}, "linger=0s idle_timeout=10ms", "tcp://127.0.0.1:0"))
		if got, err := readEnd(dial(t, h.addr(idle, 0))); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("idle: %q, %v", got, err)
		}
		for name, end := range map[string]func(l *listeners.Listener){
			"closed":   func(*listeners.Listener) { closeAll(h, false) },
			"stopped":  func(l *listeners.Listener) { l.Stop(0) },
			"tuned":    func(*listeners.Listener) { closeAll(h, false) },
			"reset":    func(*listeners.Listener) { closeAll(h, true) },
			"eof seen": nil,
		} {
			options := "linger=0s"
			if name == "tuned" || name == "reset" {
				options = ""
			}
			l := h.open(spec(t, listeners.Echo{}, options, "tcp://127.0.0.1:0"))
			c := dial(t, h.addr(l, 0))
			ask(t, c, []byte("x"))
			if name == "tuned" {
				h.tuneConns(l, "linger", "0s")
			}
			if end != nil {
				h.do(func() { end(l) })
			} else {
				c.(*net.TCPConn).CloseWrite()
			}
			if got, err := readEnd(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	})
}

// closeAll closes every connection of the host. Loop only.
func closeAll(h *host, reset bool) {
	closeOn := func(set *listeners.Set) {
		conns, _ := set.Conns(listeners.ConnQuery{}, 0, 1000)
		for _, c := range conns {
			set.CloseConn(c.FD, c.Cookie, reset)
		}
	}
	closeOn(h.set)
	for _, w := range h.workers {
		w.do(h.t, func() { closeOn(w.set) }) // which waits for nothing of this one
	}
}

// owes waits until the host has accepted c and c's window is full: the kernel
// has bytes that it cannot send, and none on their way.
func (h *host) owes(c net.Conn) {
	h.t.Helper()
	eventually(h.t, func() bool {
		return slices.ContainsFunc(h.conns(), func(st listeners.ConnStatus) bool {
			return st.Remote.IP.String() == c.LocalAddr().String() && st.Queue.UserSend > 0 && st.Queue.Unsent > 0 && st.TCP.Unacked == 0
		})
	}, func() string { return "nothing waits to be sent" })
}

// A linger time is never waited for on the loop, however the connection came
// by it and whoever closes it. Go's signals to busy threads would end such a
// wait after 10 ms and hide it, so the test runs without them.
func TestLingerDoesNotBlock(t *testing.T) {
	if !inChild(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1") }) {
		return
	}
	const long = "60s" // more than h.do waits
	const small = "send_buffer_bytes=8KiB"
	handler := &listeners.Reply{Payload: make([]byte, 8<<20), KeepOpen: true}
	h := newHost(t, "epoll", 0)
	for name, connect := range map[string]func(l *listeners.Listener) net.Conn{
		"inherited": func(l *listeners.Listener) net.Conn {
			h.tune(l, "linger", long)
			return dialSmall(t, h.addr(l, 0))
		},
		"tuned": func(l *listeners.Listener) net.Conn {
			c := dialSmall(t, h.addr(l, 0))
			h.owes(c)
			h.tuneConns(l, "linger", long)
			return c
		},
		"queued while it was on": func(l *listeners.Listener) net.Conn {
			h.tune(l, "linger", long)
			h.tune(l, "max_connections", "1")
			first := dialSmall(t, h.addr(l, 0))
			h.owes(first)
			c := dialSmall(t, h.addr(l, 0))
			h.tune(l, "linger", "")
			h.tune(l, "max_connections", "")
			first.Close()
			return c
		},
		"queued while it was on, then another spec": func(l *listeners.Listener) net.Conn {
			h.tune(l, "linger", long)
			h.tune(l, "max_connections", "1")
			first := dialSmall(t, h.addr(l, 0))
			h.owes(first)
			c := dialSmall(t, h.addr(l, 0))
			h.do(func() { l.Retarget(spec(t, handler, small, l.Spec().Listen[0].String())) })
			first.Close()
			return c
		},
	} {
		for how, end := range map[string]func(l *listeners.Listener){
			"closed": func(*listeners.Listener) { closeAll(h, false) },
			"reset":  func(*listeners.Listener) { closeAll(h, true) },
			"idle": func(l *listeners.Listener) {
				l.Tune(listeners.LookupOption("idle_timeout"), listeners.DurationValue(1))
			},
			"stop": func(l *listeners.Listener) { l.Stop(0) },
		} {
			l := h.open(spec(t, handler, small, "tcp://127.0.0.1:0"))
			c := connect(l)
			h.owes(c)
			h.do(func() { end(l) })
			h.do(func() {})
			h.do(func() { l.Stop(0) })
			eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return name + ", " + how + ": not closed" })
			c.Close()
		}
	}
}

// A close that was asked for sends what is owed first, if the peer takes it.
func TestCloseSends(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.Reply{Payload: want, KeepOpen: true}, "send_buffer_bytes=8KiB", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(l, 0))
		c.Write([]byte("never read by the server"))
		eventually(t, func() bool { conns := h.conns(); return len(conns) == 1 && conns[0].Queue.UserSend > 0 }, func() string { return "nothing is owed" })
		h.do(func() { closeAll(h, false) })
		if conns := h.conns(); len(conns) != 1 || conns[0].State != listeners.ConnClosing {
			t.Errorf("%+v", conns)
		}
		if got, err := readEnd(c); err != nil || got != string(want) {
			t.Errorf("%d of %d bytes: %v", len(got), len(want), err)
		}
		if h.loop.Poller() != "epoll" {
			return
		}
		// One that takes nothing is not waited for for ever.
		dial(t, h.addr(l, 0))
		eventually(t, func() bool { return len(h.conns()) == 2 || h.status(l).Active == 1 }, func() string { return "not connected" })
		h.do(func() { closeAll(h, false) })
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
	})
}
