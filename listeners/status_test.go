package listeners_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// What is told of a connection is what the kernel says of its two ends.
func TestConnStatus(t *testing.T) {
	oneLoop(t)
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.HTTP{Body: []byte("hello")}, "", "tcp://127.0.0.1:0"))
		begin := time.Now()
		c := dial(t, h.addr(l, 0)).(*net.TCPConn)
		r := bufio.NewReader(c)
		io.WriteString(c, get+get[:5])
		answer(t, c, r)
		eventually(t, func() bool { // a thread has what follows in its hands for a moment
			all := h.conns()
			return len(all) == 1 && all[0].Queue.UserReceive == 5
		}, func() string { return fmt.Sprintf("%+v", h.conns()) })
		st := h.conns()[0]
		var kernel unix.Stat_t
		if err := unix.Fstat(st.FD, &kernel); err != nil || kernel.Ino != st.Inode {
			t.Errorf("inode %d, %v: %d", kernel.Ino, err, st.Inode)
		}
		if cookie, err := unix.GetsockoptUint64(st.FD, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil || cookie != st.Cookie {
			t.Errorf("cookie %x, %v: %x", cookie, err, st.Cookie)
		}
		if st.Local.String() != "tcp://"+c.RemoteAddr().String() || st.Remote.String() != "tcp://"+c.LocalAddr().String() || st.Listener != "test" || st.Network != listeners.TCP {
			t.Errorf("%+v", st)
		}
		if st.Received != uint64(len(get)+5) || st.Sent < 100 || st.Reads == 0 || st.Writes == 0 || st.Queue.UserReceive != 5 || st.Queue.UserSend != 0 {
			t.Errorf("%+v", st)
		}
		if st.State != listeners.ConnOpen || st.Waits.Names()[0] != "readable" || st.Opened.Before(begin.Add(-time.Second)) || st.Active.Before(st.Opened) || st.Active.After(time.Now().Add(time.Second)) {
			t.Errorf("%+v", st)
		}
		if st.TCP == nil || st.TCP.State != 1 || st.TCP.Bytes_received != st.Received || st.TCP.Size == 0 || st.Congestion == "" || st.Memory[listeners.MemReceiveLimit] == 0 {
			t.Errorf("%+v, %+v", st, st.TCP)
		}
		h.do(func() {
			if short, _ := h.set.Conns(listeners.ConnQuery{Listener: "test"}, 0, 10); len(short) != 1 || short[0].Detail != 0 || short[0].TCP != nil || short[0].Cookie != st.Cookie {
				t.Errorf("%+v", short)
			}
			io.WriteString(c, "12345678") // not read before this returns
			if now, ok := h.set.ConnStatus(st.FD, st.Cookie); !ok || now.Queue.Receive != 8 {
				t.Errorf("%v: %+v", ok, now.Queue)
			}
		})
	})
}

func TestUnixConnStatus(t *testing.T) {
	h, dir := newHost(t, "epoll", 0), shortDir(t)
	l := h.open(spec(t, listeners.Echo{}, "", "unix://"+dir+"/s", "unixpacket://"+dir+"/p"))
	for i, network := range []listeners.Network{listeners.Unix, listeners.Unixpacket} {
		for _, name := range []string{"", dir + "/client" + string(network)} {
			var local *net.UnixAddr
			if name != "" {
				local = &net.UnixAddr{Net: string(network), Name: name}
			}
			c, err := net.DialUnix(string(network), local, h.addr(l, i).(*net.UnixAddr))
			if err != nil {
				t.Fatal(err)
			}
			ask(t, c, []byte("xx"))
			st := h.conns()[0]
			if st.Network != network || st.Remote.Path != name || st.Local.Path != h.status(l).Bound[i].Path || st.TCP != nil {
				t.Errorf("%+v", st)
			}
			if st.Peer == nil || int(st.Peer.Pid) != os.Getpid() || int(st.Peer.Uid) != os.Getuid() || int(st.Peer.Gid) != os.Getgid() {
				t.Errorf("%+v", st.Peer)
			}
			c.Close()
			eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return "not closed" })
		}
	}
}

// Connections are found by cookie and by the peer's address, in pages of any
// size, each once; what is gone is not found, whoever has its number now.
func TestFindConn(t *testing.T) {
	oneLoop(t)
	h := newHost(t, "epoll", 0)
	dir := shortDir(t)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "unix://"+dir+"/s"))
	var clients []net.Conn
	for i := range 30 {
		c := dial(t, h.addr(l, i%2))
		ask(t, c, []byte("xx"))
		clients = append(clients, c)
	}
	seen := map[uint64]listeners.ConnStatus{}
	h.do(func() {
		for next := 0; next >= 0; {
			var some []listeners.ConnStatus
			some, next = h.set.Conns(listeners.ConnQuery{Listener: "test"}, next, 7)
			for _, st := range some {
				if _, ok := seen[st.Cookie]; ok {
					t.Errorf("%x is there twice", st.Cookie)
				}
				seen[st.Cookie] = st
			}
		}
		if none, next := h.set.Conns(listeners.ConnQuery{Listener: "other"}, 0, 7); len(none) > 0 || next != -1 {
			t.Errorf("%+v, %d", none, next)
		}
	})
	if len(seen) != len(clients) {
		t.Errorf("%d of %d", len(seen), len(clients))
	}
	find := func(cookie uint64, remote string) (fd int, at uint64) {
		h.do(func() {
			for next := 0; next >= 0; {
				if fd, at, next = h.set.FindConn(cookie, remote, next); fd >= 0 {
					return
				}
			}
		})
		return fd, at
	}
	for cookie, st := range seen {
		if fd, at := find(cookie, ""); fd != st.FD || at != cookie {
			t.Errorf("%x: %d, %x", cookie, fd, at)
		}
	}
	gone := seen[0]
	for i, c := range clients[:10] {
		if i%2 == 0 {
			fd, at := find(0, c.LocalAddr().String())
			if st := seen[at]; st.FD != fd || st.Remote.IP.String() != c.LocalAddr().String() {
				t.Errorf("%v: %d, %+v", c.LocalAddr(), fd, st)
			}
			gone = seen[at]
		}
	}
	var sockets []int // of clients; each takes a number before that of the closed one is free
	for range 10 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		sockets = append(sockets, fd)
	}
	h.do(func() {
		if !h.set.CloseConn(gone.FD, gone.Cookie, true) || h.set.CloseConn(gone.FD, gone.Cookie, true) {
			t.Error("not closed, or closed twice")
		}
	})
	to := sockaddrOf(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: h.addr(l, 0).(*net.TCPAddr).Port})
	for _, fd := range sockets {
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		exchange(t, fd, []byte("xx"), make([]byte, 2), 2)
	}
	o := listeners.LookupOption("tcp.no_delay")
	h.do(func() {
		if conns, _ := h.set.Conns(listeners.ConnQuery{Listener: "test"}, gone.FD, 1); len(conns) != 1 || conns[0].FD != gone.FD || conns[0].Cookie == gone.Cookie {
			t.Errorf("%+v", conns)
		}
		if h.set.CloseConn(gone.FD, gone.Cookie, false) {
			t.Error("another was closed")
		}
		if _, ok := h.set.ConnStatus(gone.FD, gone.Cookie); ok {
			t.Error("another was shown")
		}
		if _, ok := h.set.TuneConn(gone.FD, gone.Cookie, o, listeners.BoolValue(false)); ok {
			t.Error("another was tuned")
		}
		if _, ok := h.set.ConnInForce(gone.FD, gone.Cookie, nil); ok {
			t.Error("another was read")
		}
	})
	if fd, _ := find(gone.Cookie, ""); fd >= 0 {
		t.Errorf("found %d", fd)
	}
	if fd, _ := find(0, ""); fd >= 0 {
		t.Errorf("found %d without a name", fd)
	}
	for _, fd := range sockets {
		exchange(t, fd, []byte("xx"), make([]byte, 2), 2)
	}
}

// One connection is tuned and read alone.
func TestTuneConn(t *testing.T) {
	oneLoop(t)
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	one, other := h.connOf(dial(t, h.addr(l, 0))), h.connOf(dial(t, h.addr(l, 0)))
	o := listeners.LookupOption("tcp.keepalive_count")
	h.do(func() {
		r, ok := h.set.TuneConn(one.FD, one.Cookie, o, listeners.IntValue(3))
		if !ok || r.Outcome != listeners.Applied || r.Effective.Int() != 3 || r.Connections != 1 {
			t.Errorf("%+v", r)
		}
		for st, want := range map[listeners.ConnStatus]int64{one: 3, other: 9} {
			values, ok := h.set.ConnInForce(st.FD, st.Cookie, []string{o.Name, "no.such", "backlog"})
			if n, err := unix.GetsockoptInt(st.FD, unix.IPPROTO_TCP, unix.TCP_KEEPCNT); !ok || len(values) != 1 || values[o.Name].Int() != want || int64(n) != want || err != nil {
				t.Errorf("%v, the kernel has %d, %v", values, n, err)
			}
		}
	})
}

// What the kernel drops is counted where it does: datagrams for which there is
// no room, handshakes for which there is no queue.
func TestDrops(t *testing.T) {
	h := newHost(t, "epoll", 0)
	udp := h.open(spec(t, listeners.Discard{}, "receive_buffer_bytes=4KiB", "udp://127.0.0.1:0"))
	c := dial(t, h.addr(udp, 0))
	const sent = 200
	h.do(func() { // nobody receives meanwhile
		for range sent {
			c.Write(make([]byte, 1000))
		}
	})
	eventually(t, func() bool {
		st := h.status(udp)
		return st.Queue.Drops > 0 && st.Stats.Received/1000+st.Queue.Drops == sent
	}, func() string { return fmt.Sprintf("%+v", h.status(udp)) })

	tcp := h.open(spec(t, listeners.Echo{}, "max_connections=1 backlog=1", "tcp://127.0.0.1:0"))
	first := dial(t, h.addr(tcp, 0))
	ask(t, first, []byte("x"))
	dial(t, h.addr(tcp, 0))
	dial(t, h.addr(tcp, 0))
	full(t, h.addr(tcp, 0))
	full(t, h.addr(tcp, 0))
	st := h.status(tcp)
	if st.Queue.Drops < 2 || st.Queue.Accept != 2 || st.Queue.AcceptLimit != 1 || st.Sockets[0].Queue.Drops != st.Queue.Drops {
		t.Errorf("%+v", st)
	}
	h.do(func() {
		if s := tcp.Sample(); s.Waiting != 2 || s.Limit != 1 || s.Drops != st.Queue.Drops {
			t.Errorf("%+v", s)
		}
	})
}
