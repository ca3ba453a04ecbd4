package listeners_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// Every stream network, every poller: 4 MiB come back as they went, whatever
// the buffers, and a half-close ends it.
func TestEcho(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	eachPoller(t, func(t *testing.T, h *host) {
		dir := t.TempDir()
		l := h.open(spec(t, listeners.Echo{}, "write_buffer_bytes=4KiB send_buffer_bytes=64KiB",
			"tcp://127.0.0.1:0", "tcp6://[::1]:0", "unix://"+filepath.Join(dir, "s"), "unix://@sockmgr-"+t.Name()))
		for i := range 4 {
			c := dial(t, h.addr(l, i))
			go func() {
				c.Write(want)
				c.(interface{ CloseWrite() error }).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: echo of %d bytes gave %d: %v", c.RemoteAddr(), len(want), len(got), err)
			}
		}
		st := h.status(l)
		if n := uint64(4 * len(want)); st.Stats.Accepted != 4 || st.Stats.Received != n || st.Stats.Sent != n {
			t.Errorf("counted %+v, want 4 connections and %d bytes each way", st.Stats, n)
		}
	})
}

// A unixpacket connection keeps message boundaries, also when it is slow.
func TestPackets(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "", "unixpacket://"+filepath.Join(t.TempDir(), "s")))
		c := dial(t, h.addr(l, 0))
		const messages = 2000
		go func() {
			for i := range messages {
				c.Write(bytes.Repeat([]byte{byte(i)}, 1+i*7%5000))
			}
		}()
		buf := make([]byte, 64<<10)
		for i := range messages {
			n, err := c.Read(buf)
			if err != nil || n != 1+i*7%5000 || buf[0] != byte(i) || buf[n-1] != byte(i) {
				t.Fatalf("message %d: %d bytes of %d: %v", i, n, buf[0], err)
			}
		}
	})
}

func TestReply(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		want := bytes.Repeat([]byte("reply "), 1<<18)
		l := h.open(spec(t, &listeners.Reply{Payload: want}, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(l, 0))
		c.Write([]byte("not read by the handler"))
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d of %d bytes: %v", len(got), len(want), err)
		}
	})
}

func TestDiscard(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Discard{}, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(l, 0))
		c.Write(make([]byte, 1<<20))
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("read %q, %v", got, err)
		}
		if st := h.status(l); st.Stats.Received != 1<<20 {
			t.Errorf("received %d", st.Stats.Received)
		}
	})
}

// A peer that does not read stops being read from; memory stays bounded.
func TestBackPressure(t *testing.T) {
	oneLoop(t)
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "read_buffer_bytes=4KiB write_buffer_bytes=4KiB", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	c.SetWriteDeadline(time.Now().Add(time.Second))
	if n, err := c.Write(make([]byte, 64<<20)); err == nil {
		t.Fatalf("the server took %d bytes that nobody reads", n)
	}
	h.do(func() {
		conns, _ := h.set.Conns(listeners.ConnQuery{Listener: "test", Detail: listeners.DetailFull}, 0, 10)
		if len(conns) != 1 {
			t.Fatalf("%d connections", len(conns))
		}
		if q := conns[0].Queue; q.UserSend == 0 || q.UserSend > 4<<10 || q.UserReceive > 4<<10 {
			t.Errorf("kept %d bytes out, %d in", q.UserSend, q.UserReceive)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "max_connections=2", "tcp://127.0.0.1:0"))
		echo := func(c net.Conn) {
			t.Helper()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		first, second := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
		echo(first)
		echo(second)
		third := dial(t, h.addr(l, 0)) // connects: it waits in the kernel
		third.Write([]byte("x"))
		eventually(t, func() bool { st := h.status(l); return st.State == listeners.Limited && st.Queue.Accept == 1 }, func() string {
			return "the third connection does not wait"
		})
		first.Close()
		echo2 := make([]byte, 1)
		if _, err := io.ReadFull(third, echo2); err != nil {
			t.Fatal(err)
		}
		fourth := dial(t, h.addr(l, 0))
		fourth.Write([]byte("x"))
		h.do(func() {
			if r := l.Tune(listeners.LookupOption("max_connections"), listeners.IntValue(0)); r.Outcome != listeners.Applied {
				t.Errorf("tune: %+v", r)
			}
		})
		if _, err := io.ReadFull(fourth, echo2); err != nil {
			t.Fatal(err)
		}
		if st := h.status(l); st.State != listeners.Running || st.Stats.Rejected != 0 {
			t.Errorf("state %v, %d rejected", st.State, st.Stats.Rejected)
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "idle_timeout=50ms", "tcp://127.0.0.1:0"))
		begin := time.Now()
		c := dial(t, h.addr(l, 0))
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read %d, %v", n, err)
		}
		if d := time.Since(begin); d < 50*time.Millisecond {
			t.Errorf("closed after %v", d)
		}
	})
}

// A tuned timeout reaches connections that are open.
func TestIdleTimeoutTuned(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	h.do(func() { l.Tune(listeners.LookupOption("idle_timeout"), listeners.DurationValue(20*time.Millisecond)) })
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v", n, err)
	}
}

// A stop with time to drain: what waits in the kernel is served, what is open
// may finish, the port is free at once.
func TestDrain(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0"))
		to := h.addr(l, 0)
		conns := []net.Conn{dial(t, to), dial(t, to), dial(t, to)} // two wait in the kernel
		eventually(t, func() bool { st := h.status(l); return st.Active == 1 && st.Queue.Accept == 2 }, func() string { return "not queued" })
		h.do(func() { l.Stop(time.Minute) })
		if c, err := net.Dial("tcp", to.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after stop: %v, %v", c, err)
		}
		for _, c := range conns {
			c.Write([]byte("last words"))
			c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != "last words" {
				t.Errorf("got %q, %v", got, err)
			}
		}
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
	})
}

func TestDrainDeadline(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	h.do(func() { l.Stop(30 * time.Millisecond) })
	if st := h.status(l); st.State != listeners.Draining || st.Drain.Until.IsZero() {
		t.Errorf("state %v until %v", st.State, st.Drain.Until)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// A reset by the peer is one connection's end and nothing else.
func TestReset(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		for range 20 {
			c := dial(t, h.addr(l, 0)).(*net.TCPConn)
			c.Write([]byte("x"))
			c.SetLinger(0)
			c.Close()
		}
		eventually(t, func() bool { st := h.status(l); return st.Active == 0 && st.Queue.Accept == 0 }, func() string { return "connections left" })
	})
}

// Out of descriptors: the loop does not spin, connections wait in the kernel,
// and all are served in the end.
func TestDescriptorLimit(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		h = newHost(t, h.loop.Poller(), 3) // the listener and two connections
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		var conns []net.Conn
		for range 6 {
			c := dial(t, h.addr(l, 0))
			c.Write([]byte("x"))
			conns = append(conns, c)
		}
		eventually(t, func() bool { return h.status(l).Active == 2 }, func() string { return "not accepted" })
		turns := h.loopStats().Turns
		h.status(l)
		if n := h.loopStats().Turns - turns; n > 10 {
			t.Errorf("%d turns for one command", n)
		}
		for _, c := range conns {
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	})
}
