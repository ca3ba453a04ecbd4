package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// turns runs f and returns how many turns the loop took meanwhile.
func (h *host) turns(f func()) uint64 {
	before := h.loopStats().Turns
	f()
	return h.loopStats().Turns - before
}

func (h *host) loopStats() (st mux.Stats) {
	h.here(func() { st = h.loop.Stats() })
	return st
}

// until lets so much time pass on the loop's own timers.
func (h *host) until(d time.Duration) {
	h.t.Helper()
	done := make(chan struct{})
	h.here(func() { h.loop.After(d, func() { close(done) }) })
	<-done
}

// A listener at its limit takes no turns for what waits, on any of its sockets.
func TestLimitedDoesNotSpin(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0", "tcp://[::1]:0", "unix://"+dir+"/s", "udp://127.0.0.1:0"))
		first := dial(t, h.addr(l, 0))
		ask(t, first, []byte("x"))
		var waiting []net.Conn
		for i := range 3 {
			c := dial(t, h.addr(l, i))
			io.WriteString(c, "y")
			waiting = append(waiting, c)
		}
		eventually(t, func() bool { st := h.status(l); return st.State == listeners.Limited && st.Queue.Accept == 3 }, func() string { return "not limited" })
		if n := h.turns(func() { h.until(50 * time.Millisecond) }); n > 5 {
			t.Errorf("%d turns", n)
		}
		for i := range 3 {
			if h.status(l).Sockets[i].Waits != 0 {
				t.Errorf("socket %d waits", i)
			}
		}
		// Datagrams are no connections.
		ask(t, dial(t, h.addr(l, 3)), []byte("x"))
		first.Close()
		for n := range 3 { // one after the other, from whichever socket
			c := firstAnswered(t, waiting)
			waiting = without(waiting, c)
			if st := h.status(l); st.Active != 1 || st.Queue.Accept != uint32(2-n) {
				t.Errorf("%d active, %d wait", st.Active, st.Queue.Accept)
			}
			c.Close()
		}
	})
}

// When max_connections is lowered, nobody is thrown out.
func TestLimitLowered(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		var conns []net.Conn
		for range 5 {
			c := dial(t, h.addr(l, 0))
			ask(t, c, []byte("x"))
			conns = append(conns, c)
		}
		if r := h.tune(l, "max_connections", "2"); r.Outcome != listeners.Applied || r.Previous.Int() != 0 {
			t.Errorf("%+v", r)
		}
		last := dial(t, h.addr(l, 0))
		io.WriteString(last, "z")
		eventually(t, func() bool { return h.status(l).State == listeners.Limited }, func() string { return "not limited" })
		for i, c := range conns[:4] {
			ask(t, c, []byte("x"))
			c.Close()
			if i == 3 { // one is left, so there is room
				break
			}
			eventually(t, func() bool { st := h.status(l); return st.Active == int64(4-i) && st.State == listeners.Limited }, func() string { return "not closed" })
		}
		receive(t, last)
	})
}

// Out of descriptors: connections wait in the kernel, the loop sleeps, what is
// open is served, and what waits is as soon as there are descriptors again,
// whether ours or another's are closed.
func TestEMFILE(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "unix://"+dir+"/s"))
		to := []net.Addr{h.addr(l, 0), h.addr(l, 1)}
		first := dial(t, to[0])
		ask(t, first, []byte("x"))
		var clients []int // made before, so that all that is missing is the server's ends
		for i := range 4 {
			family := []int{unix.AF_INET, unix.AF_UNIX}[i%2]
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			clients = append(clients, fd)
		}
		restore := limitDescriptors(t)
		for i, fd := range clients {
			sa := sockaddrOf(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to[0].(*net.TCPAddr).Port})
			if i%2 == 1 {
				sa = &unix.SockaddrUnix{Name: to[1].String()}
			}
			if err := unix.Connect(fd, sa); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(fd, []byte("y")); err != nil {
				t.Fatal(err)
			}
		}
		if n := h.turns(func() { h.until(300 * time.Millisecond) }); n > 60 { // 10, 20, 40, 80, 160 ms for two sockets
			t.Errorf("%d turns while nothing could be accepted", n)
		}
		ask(t, first, []byte("still served"))
		if st := h.status(l); st.Active != 1 || st.Queue.Accept != 2 { // Unix sockets cannot be asked without a descriptor
			t.Errorf("%+v", st)
		}
		first.Close() // frees both ends: two may come in
		served := map[int32]bool{}
		serve := func(n int) {
			t.Helper()
			eventually(t, func() bool {
				for _, fd := range clients {
					pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
					if n, err := unix.Poll(pfd, 0); n == 1 && err == nil {
						served[int32(fd)] = true
					}
				}
				return len(served) >= n
			}, func() string { return fmt.Sprintf("%d of %d served", len(served), n) })
		}
		serve(2)
		if n := h.turns(func() { h.until(50 * time.Millisecond) }); n > 30 || len(served) != 2 {
			t.Errorf("%d turns, %d served", n, len(served))
		}
		restore() // another's descriptors: the retry finds out
		serve(4)
	})
}

// firstAnswered reads a byte from whichever connection has one first.
func firstAnswered(t *testing.T, conns []net.Conn) (first net.Conn) {
	t.Helper()
	eventually(t, func() bool {
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			n, _ := c.Read(make([]byte, 1))
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if n == 1 {
				first = c
				return true
			}
		}
		return false
	}, func() string { return "nobody is answered" })
	return first
}

func without(conns []net.Conn, c net.Conn) (rest []net.Conn) {
	for _, other := range conns {
		if other != c {
			rest = append(rest, other)
		}
	}
	return rest
}

// limitDescriptors takes every descriptor that the process may have.
func limitDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(countFDs(t) + 100)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var fill []int
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			break // EMFILE
		}
		fill = append(fill, fd)
	}
	return func() {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
		for _, fd := range fill {
			unix.Close(fd)
		}
	}
}

// select(2) cannot express descriptors from 1024 on: a listener that gets one is
// refused, a connection is closed, and what is there is served.
func TestSelectRange(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	h := newHost(t, "select", 0)
	l := h.open(spec(t, listeners.Echo{}, "linger=60s", "tcp://127.0.0.1:0"))
	first := dial(t, h.addr(l, 0))
	ask(t, first, []byte("x"))
	var fill []int
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		fill = append(fill, fd)
		if fd >= 1024 {
			break
		}
	}
	for range 3 {
		if got, err := io.ReadAll(dial(t, h.addr(l, 0))); len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if st := h.stats(l); st.Rejected != 3 || st.Accepted != 1 {
		t.Errorf("counted %+v", st)
	}
	high, err := listeners.Open("high", spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0", "tcp://127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	h.do(func() {
		if err := high.Attach(h.set, &listeners.Counters{}); !errors.Is(err, mux.ErrFDRange) || !errors.Is(err, listeners.LimitReached) || !strings.Contains(fmt.Sprint(err), "high") {
			t.Error(err)
		}
		if err := l.Extend(high); !errors.Is(err, mux.ErrFDRange) {
			t.Error(err)
		}
	})
	high.Close()
	ask(t, first, []byte("still served"))
	for _, fd := range fill {
		unix.Close(fd)
	}
	ask(t, dial(t, h.addr(l, 0)), []byte("x"))
}

// The limit of descriptors counts listeners too, however they come.
func TestDescriptorLimitOfListeners(t *testing.T) {
	h := newHost(t, "epoll", 3)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"))
	two, err := listeners.Open("two", spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	h.do(func() {
		if err := two.Attach(h.set, &listeners.Counters{}); !errors.Is(err, listeners.LimitReached) {
			t.Error(err)
		}
		if err := l.Extend(two); !errors.Is(err, listeners.LimitReached) {
			t.Error(err)
		}
	})
	c := dial(t, h.addr(l, 0))
	ask(t, c, []byte("x"))
	second := dial(t, h.addr(l, 0))
	io.WriteString(second, "y")
	eventually(t, func() bool { return h.status(l).Sockets[0].Waits == 0 }, func() string { return "still accepting" })
	c.Close()
	receive(t, second)
}

// One busy port does not keep another from being served: accepts, reads and
// datagrams of a turn are bounded.
func TestFairness(t *testing.T) {
	h := newHost(t, "epoll", 0)
	busy := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0"))
	first := dial(t, h.addr(busy, 0))
	ask(t, first, []byte("x"))
	for range 500 {
		dial(t, h.addr(busy, 0))
	}
	var most, at int64
	h.do(func() {
		busy.Tune(listeners.LookupOption("max_connections"), listeners.Value{})
		var each func()
		each = func() { // once a turn
			n := busy.Active()
			most, at = max(most, n-at), n
			if n < 501 {
				h.loop.Post(each)
			}
		}
		at = busy.Active()
		h.loop.Post(each)
	})
	eventually(t, func() bool { return h.status(busy).Active == 501 }, func() string { return "not accepted" })
	h.do(func() {
		if most > 64 {
			t.Errorf("%d accepted in one turn", most)
		}
	})
}
