package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

func (h *host) pause(l *listeners.Listener, mode listeners.PauseMode) {
	h.t.Helper()
	h.do(func() {
		if err := l.Pause(mode); err != nil {
			h.t.Error(err)
		}
	})
}

func (h *host) resume(l *listeners.Listener) {
	h.t.Helper()
	h.do(func() {
		if err := l.Resume(); err != nil {
			h.t.Error(err)
		}
	})
}

// everywhere has an address of each kind that can refuse.
func everywhere(dir string) []string {
	return []string{"tcp://127.0.0.1:0", "tcp://[::]:0", "unix://" + dir + "/s", "unixpacket://" + dir + "/p", "udp://127.0.0.1:0", "udp://[::]:0", "udp4://0.0.0.0:0"}
}

// local is where to reach the i-th socket from here.
func (h *host) local(l *listeners.Listener, i int) net.Addr {
	switch a := h.addr(l, i).(type) {
	case *net.TCPAddr:
		if a.IP.IsUnspecified() {
			a.IP = net.IPv6loopback
		}
		return a
	case *net.UDPAddr:
		if a.IP.IsUnspecified() {
			a.IP = map[bool]net.IP{true: net.IPv4(127, 0, 0, 1), false: net.IPv6loopback}[a.IP.To4() != nil]
		}
		return a
	default:
		return a
	}
}

// While a listener holds, clients wait in the kernel, and what is open is
// served. Then those who waited are.
func TestHold(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "", everywhere(shortDir(t))...))
		open := dial(t, h.addr(l, 0))
		ask(t, open, []byte("x"))
		h.pause(l, listeners.Hold)
		before := h.status(l)
		var waiting []net.Conn
		for i := range before.Bound {
			c := dial(t, h.local(l, i))
			io.WriteString(c, fmt.Sprint("hello ", i))
			waiting = append(waiting, c)
		}
		ask(t, open, []byte("y"))
		if n := h.turns(func() { h.until(30 * time.Millisecond) }); n > 5 {
			t.Errorf("%d turns while it holds", n)
		}
		st := h.status(l)
		if st.State != listeners.Paused || st.Stats.Accepted != 1 || st.Queue.Accept != 4 || st.Paused != listeners.Hold {
			t.Errorf("%+v", st)
		}
		for i, s := range st.Sockets {
			if s.Waits != 0 || s.Inode != before.Sockets[i].Inode {
				t.Errorf("socket %d waits %v", i, s.Waits)
			}
		}
		h.resume(l)
		for i, c := range waiting {
			want := fmt.Sprint("hello ", i)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Errorf("%d: %q, %v", i, got, err)
			}
		}
		if st := h.status(l); st.State != listeners.Running {
			t.Error(st.State)
		}
	})
}

// A pause at max_connections stays one when a connection ends.
func TestHoldAtLimit(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0"))
		first, second := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
		ask(t, first, []byte("x"))
		eventually(t, func() bool { return h.status(l).State == listeners.Limited }, func() string { return "not limited" })
		h.pause(l, listeners.Hold)
		first.Close()
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
		if st := h.status(l); st.State != listeners.Paused || st.Queue.Accept != 1 {
			t.Errorf("%+v", st)
		}
		h.resume(l)
		ask(t, second, []byte("x"))
	})
}

// Refuse serves what waits, and refuses what comes. Then the same address, of
// the same socket, serves again: with port 0 too.
func TestRefuse(t *testing.T) {
	const queued = 200
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "max_connections=1 backlog=1000", everywhere(shortDir(t))[:2]...))
		u := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0", "udp://[::]:0", "udp4://0.0.0.0:0"))
		first := dial(t, h.addr(l, 0))
		ask(t, first, []byte("x"))
		var waiting []net.Conn
		for range queued {
			waiting = append(waiting, dial(t, h.local(l, 0)), dial(t, h.local(l, 1)))
		}
		before, beforeU := h.status(l), h.status(u)
		h.pause(l, listeners.Refuse)
		h.pause(u, listeners.Refuse)
		for i, c := range waiting {
			if got := ask(t, c, []byte("hello")); string(got) != "hello" {
				t.Fatalf("%d: %q", i, got)
			}
			c.Close()
		}
		for range 2 {
			for i := range 2 {
				to := h.local(l, i)
				if c, err := net.Dial(to.Network(), to.String()); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("%v: %v, %v", to, c, err)
				}
			}
			for i := range beforeU.Bound {
				refusedUDP(t, h.local(u, i))
			}
			if n := h.turns(func() { h.until(30 * time.Millisecond) }); n > 30 { // the connections end
				t.Errorf("%d turns while it refuses", n)
			}
		}
		for _, s := range h.status(l).Sockets {
			if s.State == unix.BPF_TCP_LISTEN || s.Waits != 0 {
				t.Errorf("%+v", s)
			}
		}
		first.Close()
		h.resume(l)
		h.rebind(u, u.Spec(), true)
		for _, both := range [][2]listeners.Status{{before, h.status(l)}, {beforeU, h.status(u)}} {
			for i, s := range both[1].Sockets {
				if was := both[0].Sockets[i]; s.Local.Network == listeners.TCP && s.Inode != was.Inode || s.Local != was.Local || s.Queue.AcceptLimit != was.Queue.AcceptLimit {
					t.Errorf("%+v, was %+v", s, was)
				}
			}
		}
		for i := range 2 {
			c := dial(t, h.local(l, i))
			ask(t, c, []byte("again"))
			c.Close()
		}
		for i := range beforeU.Bound {
			ask(t, dial(t, h.local(u, i)), []byte("again"))
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
		h.pause(l, listeners.Refuse) // and once more
		h.resume(l)
		ask(t, dial(t, h.local(l, 0)), []byte("again"))
	})
}

// A UDP socket that has refused hears everybody again: over IPv6 not from the
// loopback address alone.
func TestRefuseUDPWildcard(t *testing.T) {
	var own net.IP
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; ip.To4() == nil && ip.IsGlobalUnicast() {
			own = ip
		}
	}
	eachPoller(t, func(t *testing.T, h *host) {
		for _, uri := range []string{"udp://[::]:0", "udp6://[::]:0", "udp4://0.0.0.0:0"} {
			s := spec(t, listeners.Echo{}, "", uri)
			l := h.open(s)
			port := h.addr(l, 0).(*net.UDPAddr).Port
			var clients []net.Conn
			for _, ip := range []net.IP{net.IPv6loopback, own, net.IPv4(127, 0, 0, 9)} {
				if v4 := ip.To4() != nil; ip != nil && (uri != "udp6://[::]:0" || !v4) && (uri != "udp4://0.0.0.0:0" || v4) {
					clients = append(clients, dial(t, &net.UDPAddr{IP: ip, Port: port}))
				}
			}
			for range 2 {
				h.pause(l, listeners.Refuse)
				refusedUDP(t, h.local(l, 0))
				h.pause(l, listeners.Refuse)
				h.rebind(l, s, true)
				for _, c := range clients {
					ask(t, c, []byte("again"))
				}
			}
			if st := h.status(l); len(st.Sockets) != 1 || st.State != listeners.Running || st.Bound[0].IP.Port() != uint16(port) {
				t.Errorf("%+v", st)
			}
		}
	})
}

// Without reuse_address a port that refuses could not be had back while one of
// its connections is open.
func TestRefuseWithoutReuse(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	if r := h.tune(l, "reuse_address", "false"); r.Outcome != listeners.Applied {
		t.Fatalf("%+v", r)
	}
	h.do(func() {
		if err := l.Pause(listeners.Refuse); !errors.Is(err, listeners.StateInvalid) {
			t.Error(err)
		}
	})
	ask(t, dial(t, h.addr(l, 0)), []byte("x"))
	h.pause(l, listeners.Hold)
	h.resume(l)
	ask(t, dial(t, h.addr(l, 0)), []byte("x"))
}

// refusedUDP wants a datagram to be answered by ICMP port unreachable.
func refusedUDP(t *testing.T, to net.Addr) {
	t.Helper()
	c := dial(t, to)
	defer c.Close()
	io.WriteString(c, "x")
	if n, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v: %d, %v", to, n, err)
	}
}

// A Unix socket that refuses is replaced by another at the same path.
func TestRefuseUnix(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		s := spec(t, listeners.Echo{}, "unix.mode=0640", "unix://"+dir+"/s", "unixpacket://"+dir+"/p")
		l := h.open(s)
		for range 2 {
			h.pause(l, listeners.Refuse)
			for i := range 2 {
				to := h.addr(l, i)
				if c, err := net.Dial(to.Network(), to.String()); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("%v, %v", c, err)
				}
			}
			h.rebind(l, s, true)
			for i := range 2 {
				ask(t, dial(t, h.addr(l, i)), []byte("again"))
			}
			if st := h.status(l); len(st.Sockets) != 2 || st.State != listeners.Running {
				t.Errorf("%+v", st)
			}
		}
		h.pause(l, listeners.Refuse)
		h.do(func() {
			if err := l.Resume(); err == nil || l.State() != listeners.Paused {
				t.Error("resumed with the old sockets")
			}
		})
	})
}

// While another has the port, which SO_REUSEADDR lets it take, there is no
// resume; afterwards there is.
func TestRefuseTaken(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	to := h.addr(l, 0)
	h.pause(l, listeners.Refuse)
	thief, err := net.Listen("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	h.do(func() {
		err := l.Resume()
		if !errors.Is(err, listeners.AddressInUse) || !errors.Is(err, unix.EADDRINUSE) || l.State() != listeners.Paused || l.Paused() != listeners.Refuse {
			t.Errorf("%v, %v", err, l.State())
		}
	})
	thief.Close()
	h.resume(l)
	ask(t, dial(t, to), []byte("x"))
}

// Stall lets clients try again until it is over; what waits stays, and what
// was accepted keeps no filter.
func TestStall(t *testing.T) {
	needRoot(t)
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "tcp6://[::1]:0", "udp://127.0.0.1:0"))
		var queued, late []net.Conn
		h.do(func() { // so that they wait
			for _, a := range l.Status(false).Bound[:2] {
				c, err := net.Dial("tcp", a.IP.String())
				if err != nil {
					t.Error(err)
					return
				}
				queued = append(queued, c)
			}
			if err := l.Pause(listeners.Stall); err != nil {
				t.Error(err)
			}
		})
		dialed := make(chan net.Conn, 2)
		for i := range 2 {
			to := h.addr(l, i)
			go func() {
				c, err := net.Dial("tcp", to.String())
				if err != nil {
					t.Error(err)
				}
				dialed <- c
			}()
		}
		eventually(t, func() bool { return h.status(l).Queue.Drops >= 2 }, func() string { return "no SYN was dropped" })
		lost := dial(t, h.addr(l, 2))
		io.WriteString(lost, "lost")
		if st := h.status(l); st.Queue.Accept != 2 || st.Active != 0 || len(dialed) > 0 {
			t.Errorf("%+v", st)
		}
		h.resume(l)
		for range 2 {
			c := <-dialed
			defer c.Close()
			late = append(late, c)
		}
		for _, c := range append(queued, late...) {
			c.SetDeadline(time.Now().Add(30 * time.Second))
			ask(t, c, []byte("x"))
			defer c.Close()
		}
		ask(t, lost, []byte("x"))
		for _, c := range h.conns() {
			if err := unix.SetsockoptInt(c.FD, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != unix.ENOENT {
				t.Errorf("a connection has a filter: %v", err)
			}
		}
	})
}

// Without CAP_NET_ADMIN TCP clients cannot be stalled: that is said, and
// nothing changes, on no socket.
func TestStallUnprivileged(t *testing.T) {
	if !inChild(t, func(c *exec.Cmd) {
		if syscall.Getuid() != 0 {
			return
		}
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			t.Skip("root needs setpriv(1), of util-linux, to give up a capability")
		}
		c.Path, c.Args = setpriv, append([]string{"setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"}, c.Args...)
	}) {
		return
	}
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0", "tcp://127.0.0.1:0"))
	h.do(func() {
		err := l.Pause(listeners.Stall)
		fault, _ := errors.AsType[*listeners.Fault](err)
		if fault == nil || fault.Reason != listeners.CapabilityMissing || fault.Meta["capability"] != "CAP_NET_ADMIN" || !errors.Is(err, unix.EPERM) {
			t.Errorf("%v", err)
		}
	})
	if st := h.status(l); st.State != listeners.Running || st.Paused != listeners.NotPaused {
		t.Errorf("%+v", st)
	}
	ask(t, dial(t, h.addr(l, 0)), []byte("x"))
	ask(t, dial(t, h.addr(l, 1)), []byte("x"))
	u := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
	h.pause(u, listeners.Stall) // takes no privilege
	h.resume(u)
	ask(t, dial(t, h.addr(u, 0)), []byte("x"))
}

// From any mode to any other.
func TestPauseModes(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		modes := []listeners.PauseMode{listeners.NotPaused, listeners.Hold, listeners.Refuse}
		if syscall.Getuid() == 0 {
			modes = append(modes, listeners.Stall)
		}
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"))
		to := func(m listeners.PauseMode) {
			if m == listeners.NotPaused {
				h.resume(l)
			} else {
				h.pause(l, m)
			}
		}
		for _, from := range modes {
			for _, next := range modes {
				to(from)
				to(next)
				if st := h.status(l); st.Paused != next || (st.State == listeners.Running) != (next == listeners.NotPaused) {
					t.Errorf("%v to %v: %+v", from, next, st)
				}
			}
		}
		to(listeners.NotPaused)
		ask(t, dial(t, h.addr(l, 0)), []byte("x"))
		ask(t, dial(t, h.addr(l, 1)), []byte("x"))
	})
}

// What is paused can be stopped, in any mode; those who wait are served.
func TestStopPaused(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		for _, mode := range []listeners.PauseMode{listeners.Hold, listeners.Stall, listeners.Refuse} {
			if mode == listeners.Stall && syscall.Getuid() != 0 {
				continue
			}
			l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"))
			var c net.Conn
			h.do(func() {
				c, _ = net.Dial("tcp", l.Status(false).Bound[0].IP.String())
				if err := l.Pause(mode); err != nil {
					t.Error(err)
				}
			})
			h.do(func() { l.Stop(longTime) })
			c.SetDeadline(time.Now().Add(30 * time.Second))
			ask(t, c, []byte("x"))
			c.Close()
			eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
		}
	})
}
