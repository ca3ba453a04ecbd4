package listeners_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// ask sends a datagram on a connected socket and returns the answer.
func ask(t *testing.T, c net.Conn, data []byte) []byte {
	t.Helper()
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	return receive(t, c)
}

func receive(t *testing.T, c net.Conn) []byte {
	t.Helper()
	buf := make([]byte, 300_000)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("%v from %v: %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
	return buf[:n]
}

// gram is a client of a unixgram socket, bound to path unless it is empty.
func gram(t *testing.T, path, to string) *net.UnixConn {
	t.Helper()
	var local *net.UnixAddr
	if path != "" {
		local = &net.UnixAddr{Net: "unixgram", Name: path}
	}
	c, err := net.DialUnix("unixgram", local, &net.UnixAddr{Net: "unixgram", Name: to})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// at is where a client reaches a, whose host may be all addresses.
func at(a net.Addr, host string) net.Addr {
	return net.UDPAddrFromAddrPort(netip(host, a.(*net.UDPAddr).Port))
}

func TestDatagramEcho(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "", "udp4://127.0.0.1:0", "udp6://[::1]:0", "udp://[::]:0", "unixgram://"+dir+"/s"))
		clients := []net.Conn{
			dial(t, h.addr(l, 0)), dial(t, h.addr(l, 1)),
			dial(t, at(h.addr(l, 2), "127.0.0.1")), dial(t, at(h.addr(l, 2), "::1")),
			gram(t, dir+"/c", dir+"/s"), gram(t, "@sockmgr-"+filepath.Base(dir), dir+"/s"),
		}
		total := 0
		for i, c := range clients {
			for _, size := range []int{1, 0, 1000, 65507} {
				want := bytes.Repeat([]byte{byte(i + 1)}, size)
				if got := ask(t, c, want); !bytes.Equal(got, want) {
					t.Errorf("%v: %d bytes came back as %d", c.RemoteAddr(), size, len(got))
				}
				total += size
			}
		}
		st := h.status(l)
		if n := uint64(total); st.Stats.Received != n || st.Stats.Sent != n || st.Stats.Rejected != 0 || st.Stats.Accepted != 0 {
			t.Errorf("counted %+v, want %d bytes each way", st.Stats, n)
		}
	})
}

func TestDatagramDiscardAndReply(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		reply := h.open(spec(t, &listeners.Reply{Payload: bytes.Repeat([]byte("r"), 65507)}, "udp.max_reply_bytes=65507", "udp://127.0.0.1:0"))
		if got := ask(t, dial(t, h.addr(reply, 0)), nil); len(got) != 65507 {
			t.Errorf("reply of %d bytes", len(got))
		}
		discard := h.open(spec(t, listeners.Discard{}, "", "udp://127.0.0.1:0"))
		c := dial(t, h.addr(discard, 0))
		for range 3 {
			c.Write([]byte("dropped"))
		}
		eventually(t, func() bool { return h.stats(discard).Received == 21 }, func() string { return "not received" })
		if st := h.stats(discard); st.Sent != 0 || st.Rejected != 0 {
			t.Errorf("counted %+v", st)
		}
	})
}

// The longest datagrams that there are: IPv6 takes 20 bytes more than IPv4,
// and Unix sockets take what the send buffer holds.
func TestDatagramLongest(t *testing.T) {
	h := newHost(t, "epoll", 0)
	dir := shortDir(t)
	l := h.open(spec(t, listeners.Echo{}, "", "udp6://[::1]:0", "unixgram://"+dir+"/s"))
	if got := ask(t, dial(t, h.addr(l, 0)), make([]byte, 65527)); len(got) != 65527 {
		t.Errorf("%d bytes came back", len(got))
	}
	c := gram(t, dir+"/c", dir+"/s")
	if got := ask(t, c, make([]byte, 65536)); len(got) != 65536 {
		t.Errorf("%d bytes came back", len(got))
	}
	// One that does not fit is dropped, not answered in part.
	c.Write(make([]byte, 65537))
	if got := ask(t, c, []byte("next")); string(got) != "next" {
		t.Errorf("%d bytes came back", len(got))
	}
	if n := h.stats(l).Rejected; n != 1 {
		t.Errorf("%d rejected", n)
	}
}

// A client that is connected hears nobody but whom it asked.
func TestDatagramSource(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		v4 := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.9.9.9"}
		v6 := []string{"::1"}
		interfaces, _ := net.InterfaceAddrs()
		for _, a := range interfaces { // reached over loopback too
			if ip := a.(*net.IPNet).IP; ip.IsGlobalUnicast() && ip.To4() == nil {
				v6 = append(v6, ip.String())
			}
		}
		for _, tt := range []struct {
			uri   string
			hosts []string
		}{
			{"udp4://0.0.0.0:0", v4},
			{"udp://0.0.0.0:0", v4},
			{"udp6://[::]:0", v6},
			{"udp://[::]:0", append(v4, v6...)},
		} {
			l := h.open(spec(t, listeners.Echo{}, "", tt.uri))
			for _, host := range tt.hosts {
				for range 2 { // the control messages of a batch are used again
					if got := ask(t, dial(t, at(h.addr(l, 0), host)), []byte(host)); string(got) != host {
						t.Errorf("%s asked at %s: %q", tt.uri, host, got)
					}
				}
			}
		}
	})
}

// More wait than one batch takes, from several clients: all are answered, each
// to whom it is due.
func TestDatagramBatches(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "receive_buffer_bytes=2MiB", "udp://[::]:0"))
		to := h.addr(l, 0)
		clients := []net.Conn{dial(t, at(to, "127.0.0.1")), dial(t, at(to, "127.0.0.2")), dial(t, at(to, "::1"))}
		for _, c := range clients {
			c.(*net.UDPConn).SetReadBuffer(2 << 20)
		}
		const each = 150
		h.do(func() { // so that they wait
			for i := range each {
				for j, c := range clients {
					fmt.Fprintf(c, "%d from %d", i, j)
				}
			}
		})
		for i := range each {
			for j, c := range clients {
				if got, want := string(receive(t, c)), fmt.Sprintf("%d from %d", i, j); got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
		}
	})
}

// Two services must not answer each other for ever.
func TestDatagramLoops(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "udp4://127.0.0.1:0", "udp6://[::1]:0", "udp://[::]:0"))
	other := h.open(spec(t, &listeners.Reply{Payload: []byte("pong")}, "", "udp4://127.0.0.1:0", "udp6://[::1]:0"))
	st, ost := h.status(l), h.status(other)
	var sent uint64
	forge := func(from int, to unix.Sockaddr) {
		t.Helper()
		if err := unix.Sendto(from, []byte("ping"), 0, to); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	v4 := func(s listeners.SocketStatus) unix.Sockaddr {
		return &unix.SockaddrInet4{Port: int(s.Local.IP.Port()), Addr: [4]byte{127, 0, 0, 1}}
	}
	v6 := func(s listeners.SocketStatus) unix.Sockaddr {
		return &unix.SockaddrInet6{Port: int(s.Local.IP.Port()), Addr: [16]byte{15: 1}}
	}
	forge(st.Sockets[0].FD, v4(st.Sockets[0]))  // from itself
	forge(ost.Sockets[0].FD, v4(st.Sockets[0])) // from the other
	forge(ost.Sockets[1].FD, v6(st.Sockets[1]))
	forge(ost.Sockets[0].FD, v4(st.Sockets[2]))
	forge(ost.Sockets[1].FD, v6(st.Sockets[2]))
	eventually(t, func() bool { return h.stats(l).Rejected == sent }, func() string { return fmt.Sprintf("%+v", h.stats(l)) })
	if st, ost := h.stats(l), h.stats(other); st.Sent != 0 || st.Received != 4*sent || ost.Received != 0 {
		t.Errorf("counted %+v and %+v", st, ost)
	}
	// A port that was ours is nobody's special port.
	port := ost.Sockets[0].Local.IP.Port()
	h.do(func() { other.Stop(0) })
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip("127.0.0.1", int(port))), h.addr(l, 0).(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if got := ask(t, c, []byte("x")); string(got) != "x" {
		t.Errorf("got %q", got)
	}
}

// Well-known services answer too, and need root to be one.
func TestDatagramLowPort(t *testing.T) {
	needRoot(t)
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "udp://[::]:0"))
	for i, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip(host, 0)), at(h.addr(l, 0), host).(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		low := lowPort(t, host)
		defer unix.Close(low)
		sa := sockaddrOf(at(h.addr(l, 0), host).(*net.UDPAddr))
		if err := unix.Sendto(low, []byte("x"), 0, sa); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return h.stats(l).Rejected == uint64(i+1) }, func() string { return "answered" })
	}
	if n := h.stats(l).Sent; n != 0 {
		t.Errorf("sent %d bytes", n)
	}
}

// lowPort binds the first free UDP port below 1024.
func lowPort(t *testing.T, host string) int {
	t.Helper()
	sa := sockaddrOf(net.UDPAddrFromAddrPort(netip(host, 0)))
	family := unix.AF_INET
	if _, ok := sa.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for port := 1; port < 1024; port++ {
		if unix.Bind(fd, sockaddrOf(net.UDPAddrFromAddrPort(netip(host, port)))) == nil {
			return fd
		}
	}
	t.Fatal("no port below 1024 is free")
	return -1
}

// A client that has gone is no reason to stop serving the others.
func TestDatagramClientGone(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "", "udp4://127.0.0.1:0", "unixgram://"+dir+"/s"))
		for i := range 20 {
			c := dial(t, h.addr(l, 0))
			u := gram(t, fmt.Sprintf("%s/c%d", dir, i), dir+"/s")
			h.do(func() { // the answers find nobody
				c.Write([]byte("x"))
				u.Write([]byte("x"))
				c.Close()
				u.Close()
			})
		}
		eventually(t, func() bool { return h.stats(l).Received == 40 }, func() string { return "not received" })
		if got := ask(t, dial(t, h.addr(l, 0)), []byte("y")); string(got) != "y" {
			t.Errorf("got %q", got)
		}
		if got := ask(t, gram(t, dir+"/c", dir+"/s"), []byte("y")); string(got) != "y" {
			t.Errorf("got %q", got)
		}
		if st := h.stats(l); st.Rejected != 20 { // ECONNREFUSED or ENOENT; UDP takes them
			t.Errorf("counted %+v", st)
		}
	})
}

// A Unix client without a name cannot be answered; one that does not read
// loses answers, and nobody else does.
func TestUnixgramClients(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "", "unixgram://"+dir+"/s"))
		unnamed := gram(t, "", dir+"/s")
		unnamed.Write([]byte("x"))
		eventually(t, func() bool { return h.stats(l).Rejected == 1 }, func() string { return "not rejected" })
		full := gram(t, dir+"/full", dir+"/s")
		const asked = 100 // net.unix.max_dgram_qlen is 10, or 512 on some
		for range asked {
			full.Write([]byte("x"))
		}
		other := gram(t, dir+"/other", dir+"/s")
		if got := ask(t, other, []byte("y")); string(got) != "y" {
			t.Errorf("got %q", got)
		}
		st := h.stats(l)
		if st.Received != 1+asked+1 || st.Sent+st.Rejected != st.Received {
			t.Errorf("counted %+v", st)
		}
		for n := st.Sent - 1; n > 0; n-- {
			if got := receive(t, full); string(got) != "x" {
				t.Errorf("got %q", got)
			}
		}
		if got := ask(t, full, []byte("z")); string(got) != "z" {
			t.Errorf("got %q", got)
		}
	})
}

// Nobody can give the daemon descriptors that it did not ask for.
func TestUnwantedDescriptors(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "", "unixgram://"+dir+"/g", "unix://"+dir+"/s", "unixpacket://"+dir+"/p"))
		clients := []*net.UnixConn{gram(t, dir+"/c", dir+"/g"), dial(t, h.addr(l, 1)).(*net.UnixConn), dial(t, h.addr(l, 2)).(*net.UnixConn)}
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		before := countFDs(t)
		rights := unix.UnixRights(int(file.Fd()), int(file.Fd()), int(file.Fd()))
		for range 10 {
			for _, c := range clients {
				raw, err := c.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				raw.Control(func(fd uintptr) { err = unix.Sendmsg(int(fd), []byte("x"), rights, nil, 0) })
				if err != nil {
					t.Fatal(err)
				}
				if got := receive(t, c); string(got) != "x" {
					t.Errorf("got %q", got)
				}
			}
		}
		if n := countFDs(t); n > before+len(clients) { // the connections
			t.Errorf("%d descriptors, %d before", n, before)
		}
	})
}

// While the kernel takes no more, nothing is received, what is kept is bounded,
// and all that was kept is sent in the end. Loopback never fills a send
// buffer: packets that wait for a neighbour's address do.
func TestDatagramBackPressure(t *testing.T) {
	needRoot(t)
	if !inChild(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} }) {
		return
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "v0", "type", "veth", "peer", "name", "v1"},
		{"addr", "add", "10.9.8.1/24", "dev", "v0"},
		{"link", "set", "v0", "up"},
		{"link", "set", "v1", "up"},
	} {
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v %s", args, err, out)
		}
	}
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "send_buffer_bytes=4KiB write_buffer_bytes=4KiB udp.segment_bytes=1001", "udp4://10.9.8.1:0")) // or the answers are one packet
	// A client at an address where nobody answers, and which is not ours.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1), unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 8, 7}}))
	if err != nil {
		t.Fatal(err)
	}
	to := sockaddrOf(h.addr(l, 0).(*net.UDPAddr))
	send := func(n int) {
		for range n {
			if err := unix.Sendto(fd, make([]byte, 1000), 0, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.do(func() { send(40) })
	eventually(t, func() bool { return h.stats(l).Received == 40_000 }, func() string { return fmt.Sprintf("not received: %+v", h.status(l)) })
	send(10)
	st := h.status(l)
	if s := st.Sockets[0]; s.Waits.Names()[0] != "writable" || s.Queue.UserSend == 0 || s.Queue.UserSend > 4<<10 || s.Queue.Receive == 0 {
		t.Errorf("waits %v, keeps %+v", s.Waits.Names(), s.Queue)
	}
	if st.Stats.Sent+st.Sockets[0].Queue.UserSend+1000*st.Stats.Rejected != 40_000 {
		t.Errorf("counted %+v, keeps %d", st.Stats, st.Sockets[0].Queue.UserSend)
	}
	// The kernel gives up on the neighbour, drops, and so takes more.
	eventually(t, func() bool { return h.stats(l).Received == 50_000 }, func() string { return fmt.Sprintf("%+v", h.status(l)) })
}
