package listeners_test

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// segmented is a client whose kernel cuts what it sends into datagrams of size,
// which the other side gets as one buffer.
func segmented(t *testing.T, to net.Addr, size int) *net.UDPConn {
	t.Helper()
	c := dial(t, to).(*net.UDPConn)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fault error
	err = raw.Control(func(fd uintptr) { fault = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err != nil || fault != nil {
		t.Skipf("UDP_SEGMENT: %v %v", err, fault)
	}
	return c
}

// numbered is n datagrams of size, each with its number, and a shorter one.
func numbered(n, size int) (all []byte, each [][]byte) {
	for i := range n {
		p := append(fmt.Appendf(nil, "%04d", i), bytes.Repeat([]byte{byte(i)}, size-4)...)
		if i == n-1 {
			p = p[:size/2]
		}
		all, each = append(all, p...), append(each, p)
	}
	return all, each
}

// Datagrams that come together are single ones for the handler, the counters and
// who gets the answers; they keep their order, and answers leave from the
// address that was asked.
func TestGather(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		up := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
		for _, handler := range []listeners.HandlerSpec{listeners.Echo{}, forwardTo(h.addr(up, 0))} {
			for _, uri := range []string{"udp4://127.0.0.1:0", "udp6://[::1]:0", "udp4://0.0.0.0:0", "udp://[::]:0"} {
				l, counters := h.openCounted(spec(t, handler, "", uri))
				to := h.local(l, 0).(*net.UDPAddr)
				if uri == "udp4://0.0.0.0:0" {
					to.IP = net.IPv4(127, 0, 0, 5)
				}
				var want uint64
				for _, size := range []int{8, 100, 1200} {
					c := segmented(t, to, size)
					all, each := numbered(40, size)
					for range 3 {
						if _, err := c.Write(all); err != nil {
							t.Fatal(err)
						}
						for _, p := range each {
							if got := receive(t, c); !bytes.Equal(got, p) {
								t.Fatalf("%s: %.10q of %d bytes, want %.10q of %d", uri, got, len(got), p, len(p))
							}
						}
						want += uint64(len(each))
					}
				}
				eventually(t, func() bool {
					n := counters()
					return n.ReceivedDatagrams == want && n.SentDatagrams == want && n.Received == n.Sent
				}, func() string { return fmt.Sprintf("%+v, want %d", counters(), want) })
				h.do(func() { l.Stop(0) })
			}
		}
	})
}

// Many at once, of several clients and sizes, each in order.
func TestGatherMany(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "receive_buffer_bytes=4MiB", "udp4://127.0.0.1:0"))
	type client struct {
		c    *net.UDPConn
		all  []byte
		each [][]byte
	}
	var clients []client
	for i := range 8 {
		size := 10 + 37*i
		all, each := numbered(50, size)
		clients = append(clients, client{segmented(t, h.addr(l, 0), size), all, each})
	}
	h.do(func() { // the loop finds all of them at once
		for range 2 {
			for _, c := range clients {
				c.c.Write(c.all)
			}
		}
	})
	for _, c := range clients {
		for range 2 {
			for _, p := range c.each {
				if got := receive(t, c.c); !bytes.Equal(got, p) {
					t.Fatalf("%.10q of %d bytes, want %.10q of %d", got, len(got), p, len(p))
				}
			}
		}
	}
}

// A program that gets the sockets gets single datagrams: what came together
// before is served first.
func TestGatherNotForPrograms(t *testing.T) {
	h := newHost(t, "epoll", 0)
	s := spec(t, listeners.Echo{}, "", "udp4://127.0.0.1:0")
	l := h.open(s)
	isOn := func() (on int) {
		h.do(func() { on, _ = unix.GetsockoptInt(l.Status(true).Sockets[0].FD, unix.IPPROTO_UDP, unix.UDP_GRO) })
		return on
	}
	if isOn() == 0 {
		t.Skip("the kernel has no UDP_GRO")
	}
	c := segmented(t, h.addr(l, 0), 20)
	all, each := numbered(40, 20)
	given := s
	given.Handler = python(t)
	h.do(func() {
		c.Write(all)
		c.Write(all)
		l.Settle(given)
	})
	for range 2 {
		for _, p := range each {
			if got := receive(t, c); !bytes.Equal(got, p) {
				t.Fatalf("%q, want %q", got, p)
			}
		}
	}
	if isOn() != 0 {
		t.Error("the program gets several datagrams as one")
	}
	h.do(func() { l.Settle(s) })
	eventually(t, func() bool { return isOn() == 1 }, func() string { return "off" })
}

// What the kernel does not send together is sent one by one: here each is longer
// than the MTU.
func TestGatherTooLong(t *testing.T) {
	needRoot(t)
	if !inChild(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} }) {
		return
	}
	if out, err := exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up", "mtu", "1500").CombinedOutput(); err != nil {
		t.Skipf("ip: %v %s", err, out)
	}
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "udp4://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	for range 2 {
		h.do(func() {
			for i := range 10 {
				c.Write(bytes.Repeat([]byte{byte(i)}, 3000))
			}
		})
		for i := range 10 {
			if got := receive(t, c); len(got) != 3000 || got[0] != byte(i) {
				t.Fatalf("%d bytes of %d, want %d", len(got), got[0], i)
			}
		}
	}
	if st := h.stats(l); st.Rejected != 0 {
		t.Errorf("%+v", st)
	}
}
