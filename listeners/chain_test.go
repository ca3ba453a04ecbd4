package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// A forward to another listener of ours is one like any other; one that leads
// back to where it began is refused at once, by whatever name.
func TestForwardLoops(t *testing.T) {
	dir := shortDir(t)
	for name, c := range map[string]struct{ first, second, to string }{
		"address": {"tcp://127.0.0.1:0", "tcp://127.0.0.1:0", "tcp://127.0.0.1:%d"},
		"name":    {"tcp://127.0.0.1:0", "tcp://127.0.0.1:0", "tcp4://localhost:%d"},
		"mapped":  {"tcp://[::]:0", "tcp://127.0.0.1:0", "tcp://[::ffff:127.0.0.1]:%d"},
		"another": {"tcp://0.0.0.0:0", "tcp://127.0.0.1:0", "tcp://127.0.0.2:%d"},
		"unix":    {"unix://" + filepath.Join(dir, "a"), "unix://" + filepath.Join(dir, "b"), "unix://" + filepath.Join(dir, "a")},
		"link":    {"unix://" + filepath.Join(dir, "c"), "tcp://127.0.0.1:0", "unix://" + filepath.Join(dir, ".", "c")},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, h *host) {
				echo := spec(t, listeners.Echo{}, "", c.second)
				second := h.open(echo)
				first, counters := h.openCounted(spec(t, forwardTo(h.addr(second, 0)), "", c.first))
				client := dial(t, h.addr(first, 0))
				ask(t, client, []byte("no loop"))
				client.Close()
				to := c.to
				if strings.Contains(to, "%d") {
					to = fmt.Sprintf(to, h.addr(first, 0).(*net.TCPAddr).Port)
				}
				back := spec(t, &listeners.Forward{Upstreams: []listeners.Upstream{{Address: to}}}, "", c.second)
				h.do(func() { second.Settle(back) })
				eventually(t, func() bool {
					to := h.addr(first, 0)
					client, err := net.Dial(to.Network(), to.String())
					if err != nil { // it was reset already
						return rejected(counters, listeners.RejectedLoop) > 0
					}
					defer client.Close()
					_ = client.SetDeadline(time.Now().Add(5 * time.Second))
					if _, err := io.ReadAll(client); err != nil && strings.Contains(err.Error(), "timeout") {
						t.Fatal("the loop goes on")
					}
					return rejected(counters, listeners.RejectedLoop) > 0
				}, func() string { return "nothing was refused" })
				eventually(t, func() bool { return h.status(first).Active == 0 && h.status(second).Active == 0 }, func() string { return "connections are left" })
				if h.log.count("refused to forward") == 0 {
					t.Error("the log does not say so")
				}
			})
		})
	}
}

// One datagram makes two sessions, and not as many as there may be.
func TestForwardLoopsDatagram(t *testing.T) {
	dir := shortDir(t)
	for name, c := range map[string][2]string{
		"udp": {"udp://127.0.0.1:0", "udp://127.0.0.1:0"}, "unixgram": {"unixgram://" + dir + "/a", "unixgram://" + dir + "/b"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "epoll", 0)
			second := h.open(spec(t, listeners.Echo{}, "", c[1]))
			first, counters := h.openCounted(spec(t, forwardTo(h.addr(second, 0)), "", c[0]))
			var client net.Conn
			if name == "udp" {
				client = dial(t, h.addr(first, 0))
			} else {
				client = gram(t, dir+"/c", dir+"/a")
			}
			defer client.Close()
			ask(t, client, []byte("no loop"))
			back := spec(t, forwardTo(h.addr(first, 0)), "", c[1])
			h.do(func() { second.Settle(back) })
			if _, err := client.Write([]byte("round")); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return rejected(counters, listeners.RejectedLoop) == 1 }, func() string { return fmt.Sprintf("%+v", counters().RejectedBy) })
		})
	}
}

// A long way is not a loop, up to a limit.
func TestForwardHops(t *testing.T) {
	h := newHost(t, "epoll", 0)
	next := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	var last func() listeners.Counters
	for i := range 9 {
		l, counters := h.openCounted(spec(t, forwardTo(h.addr(next, 0)), "", "tcp://127.0.0.1:0"))
		if next = l; i == 0 {
			last = counters
		}
		to := h.addr(l, 0)
		client, err := net.Dial(to.Network(), to.String())
		switch {
		case err != nil && i < 8:
			t.Fatal(err)
		case err != nil: // reset at once
		case i < 8:
			ask(t, client, []byte("x"))
			client.Close()
		default:
			if _, err := io.ReadAll(client); err == nil {
				t.Error("nine forwards in a row are not refused")
			}
			client.Close()
		}
	}
	if n := rejected(last, listeners.RejectedLoop); n != 1 {
		t.Errorf("%d refused", n)
	}
}

// The kernel gives a port to several connections, if they lead to different
// places: a client that has the one of a socket to an upstream is a client.
func TestForwardSharedPort(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		up := backend(t, "tcp", "127.0.0.1:0")
		l, counters := h.openCounted(spec(t, forwardTo(up.Addr()), "", "tcp://127.0.0.1:0"))
		dial(t, h.addr(l, 0))
		port := up.next(t).RemoteAddr().(*net.TCPAddr).Port
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			if failed := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, port|port<<16)
			}); failed != nil {
				return failed
			}
			return err
		}}
		client, err := dialer.Dial("tcp", h.addr(l, 0).String())
		if errors.Is(err, unix.ENOPROTOOPT) {
			t.Skip("IP_LOCAL_PORT_RANGE needs Linux 6.3")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if have := client.LocalAddr().(*net.TCPAddr).Port; have != port {
			t.Fatalf("the port is %d, not %d", have, port)
		}
		_, _ = up.next(t).Write([]byte("welcome"))
		_ = client.SetReadDeadline(time.Now().Add(20 * time.Second))
		if got := receive(t, client); string(got) != "welcome" {
			t.Errorf("%q", got)
		}
		if n := rejected(counters, listeners.RejectedLoop); n != 0 {
			t.Errorf("%d refused", n)
		}
	})
}

// Sockets to upstreams that move to another process are known there.
func TestResumeLoop(t *testing.T) {
	m := newMover(t)
	m.open("second", spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	m.open("first", spec(t, forwardTo(m.addr("second")), "", "tcp://127.0.0.1:0"))
	back := spec(t, forwardTo(m.addr("first")), "", "tcp://127.0.0.1:0")
	m.do(func() error { m.ls["second"].Settle(back); return m.ls["second"].Pause(listeners.Hold) })
	client := dial(t, m.addr("first"))
	eventually(t, func() bool { return m.status("first").Upstreams[0].Connects == 1 }, func() string { return "the forward does not connect" })
	m.move(false)
	m.do(func() error { return m.ls["second"].Resume() })
	if _, err := io.ReadAll(client); err == nil {
		t.Error("the loop was not refused")
	}
	m.do(func() error { // not a round later, by the second
		if n := m.counters["first"].RejectedBy[listeners.RejectedLoop]; n != 1 {
			t.Errorf("%d refused by the first", n)
		}
		return nil
	})
}
