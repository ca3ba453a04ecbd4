package listeners_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// uri is the address of a, as an upstream.
func uri(a net.Addr) string { return a.Network() + "://" + a.String() }

func forwardTo(to ...net.Addr) *listeners.Forward {
	f := &listeners.Forward{}
	for _, a := range to {
		f.Upstreams = append(f.Upstreams, listeners.Upstream{Address: uri(a)})
	}
	return f
}

// A server is a plain one, on Go's net package, whose connections the test has.
type server struct {
	net.Listener
	conns chan net.Conn
}

func backend(t *testing.T, network, address string) *server {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{l, make(chan net.Conn, 1000)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns <- c
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for len(s.conns) > 0 {
			(<-s.conns).Close()
		}
	})
	return s
}

// next is the next connection that the server was given.
func (s *server) next(t *testing.T) net.Conn {
	t.Helper()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	select {
	case c := <-s.conns:
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	case <-late.C:
		t.Fatal("nobody connects")
		return nil
	}
}

// gone is an address where nobody is.
func gone(t *testing.T) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr()
}

// closeWrite sends FIN.
func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
}

// What each side sends reaches the other, half-close is carried over, and the
// end of both ends the connection; from every stream network to every other.
func TestForward(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		for _, from := range []string{"tcp://127.0.0.1:0", "tcp://[::1]:0", "unix://" + dir + "/in"} {
			for _, to := range [][2]string{{"tcp", "127.0.0.1:0"}, {"tcp", "[::1]:0"}, {"unix", dir + "/up"}} {
				s := backend(t, to[0], to[1])
				l := h.open(spec(t, forwardTo(s.Addr()), "", from))
				client := dial(t, h.addr(l, 0))
				up := s.next(t)
				io.WriteString(client, "question")
				closeWrite(t, client)
				if got, err := io.ReadAll(up); string(got) != "question" || err != nil {
					t.Errorf("%s to %s: %q, %v", from, to, got, err)
				}
				io.WriteString(up, "answer")
				up.Close()
				if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
					t.Errorf("%s to %s: %q, %v", from, to, got, err)
				}
				eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
				if st := h.stats(l); st.Received != 8 || st.Sent != 6 {
					t.Errorf("%+v", st)
				}
				h.do(func() { l.Stop(0) })
				s.Close()
			}
		}
	})
}

// RST is carried over, both ways, also when the other side is not read from.
func TestForwardReset(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		s := backend(t, "tcp", "127.0.0.1:0")
		l := h.open(spec(t, forwardTo(s.Addr()), "", "tcp://127.0.0.1:0"))
		for i := range 4 {
			client := dial(t, h.addr(l, 0))
			up := s.next(t)
			a, b := client, up
			if i%2 == 1 {
				a, b = up, client
			}
			if i > 1 {
				io.WriteString(b, "unread")
			}
			a.(*net.TCPConn).SetLinger(0)
			a.Close()
			if _, err := io.ReadAll(b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%d: %v", i, err)
			}
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
	})
}

// hashed counts and sums what is read.
func hashed(c net.Conn) (n int64, sum [32]byte, err error) {
	h := sha256.New()
	n, err = io.Copy(h, c)
	h.Sum(sum[:0])
	return n, sum, err
}

// send writes n random bytes, in pieces of all sizes, and returns their sum.
func send(c net.Conn, seed uint64, n int) (sum [32]byte, err error) {
	random := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	h := sha256.New()
	for n > 0 && err == nil {
		piece := data[random.IntN(1<<19):][:min(n, 1+random.IntN(1<<uint(1+random.IntN(19))))]
		h.Write(piece)
		_, err = c.Write(piece)
		n -= len(piece)
	}
	h.Sum(sum[:0])
	return sum, err
}

// Long flows both ways at once arrive whole, copied and spliced.
func TestForwardBulk(t *testing.T) {
	const size = 64 << 20
	eachWay(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		for _, networks := range [][2]string{{"tcp://127.0.0.1:0", "tcp"}, {"unix://" + dir + "/in", "unix"}} {
			at := "127.0.0.1:0"
			if networks[1] == "unix" {
				at = dir + "/up"
			}
			s := backend(t, networks[1], at)
			l := h.open(spec(t, forwardTo(s.Addr()), "", networks[0]))
			client := dial(t, h.addr(l, 0))
			up := s.next(t)
			var wg sync.WaitGroup
			var sent, got [2][32]byte
			for i, pair := range [][2]net.Conn{{client, up}, {up, client}} {
				wg.Go(func() {
					var err error
					if sent[i], err = send(pair[0], uint64(i), size); err != nil {
						t.Error(err)
					}
					closeWrite(t, pair[0])
				})
				wg.Go(func() {
					n, sum, err := hashed(pair[1])
					if n != size || err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
					got[i] = sum
				})
			}
			wg.Wait()
			if got != sent {
				t.Error("what arrived is not what was sent")
			}
			eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
			if st := h.stats(l); st.Received != size || st.Sent != size {
				t.Errorf("%+v", st)
			}
			h.do(func() { l.Stop(0) })
			s.Close()
		}
	})
}

// Who does not read makes the other wait, in bounded memory; the other way goes
// on.
func TestForwardBackPressure(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		s := backend(t, "tcp", "127.0.0.1:0")
		l := h.open(spec(t, forwardTo(s.Addr()), "", "tcp://127.0.0.1:0"))
		client := dial(t, h.addr(l, 0))
		up := s.next(t)
		stuck := make(chan struct{})
		sent := make(chan [32]byte, 1)
		go func() {
			sum, err := send(client, 1, 64<<20)
			if err != nil {
				t.Error(err)
			}
			closeWrite(t, client)
			sent <- sum
		}()
		go func() {
			defer close(stuck)
			last := uint64(0)
			eventually(t, func() bool {
				h.until(20 * time.Millisecond)
				now := h.stats(l).Received
				is := now > 0 && now == last
				last = now
				return is
			}, func() string { return "the sender is not held up" })
		}()
		<-stuck
		if n := h.turns(func() { h.until(30 * time.Millisecond) }); n > 5 {
			t.Errorf("%d turns while nothing moves", n)
		}
		io.WriteString(up, "the other way")
		if got := make([]byte, 13); true {
			if _, err := io.ReadFull(client, got); err != nil || string(got) != "the other way" {
				t.Errorf("%q, %v", got, err)
			}
		}
		n, sum, err := hashed(up)
		if n != 64<<20 || err != nil || sum != <-sent {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// What the upstream said before it closed and reset reaches the client.
func TestForwardAnswerBeforeReset(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		s := backend(t, "tcp", "127.0.0.1:0")
		l := h.open(spec(t, forwardTo(s.Addr()), "", "tcp://127.0.0.1:0"))
		answer := bytes.Repeat([]byte("x"), 100<<10)
		for range 20 {
			client := dial(t, h.addr(l, 0))
			up := s.next(t)
			up.Write(answer)
			up.Close() // what comes now is answered with RST
			io.WriteString(client, "too late")
			got := make([]byte, len(answer))
			if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, answer) {
				t.Fatalf("%v", err)
			}
			client.Close()
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
	})
}

// An upstream that refuses is left for the next; when none is left the client
// is reset, and told from other ends.
func TestForwardNextUpstream(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		s := backend(t, "tcp", "127.0.0.1:0")
		f := forwardTo(gone(t), gone(t), s.Addr())
		f.Balance = listeners.First
		l := h.open(spec(t, f, "", "tcp://127.0.0.1:0"))
		for range 10 {
			c := dial(t, h.addr(l, 0))
			io.WriteString(c, "x")
			up := s.next(t)
			io.ReadFull(up, make([]byte, 1)) // a close with unread input is a reset
			io.WriteString(up, "y")
			up.Close()
			if got, err := io.ReadAll(c); string(got) != "y" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			c.Close()
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
		st := h.upstreams(l)
		if st[0].Healthy || st[1].Healthy || !st[2].Healthy || st[0].Failed != 3 || st[2].Connects != 10 || st[2].Active != 0 || st[0].LastError == "" {
			t.Errorf("%+v", st)
		}
		s.Close()
		c, err := net.Dial("tcp", h.addr(l, 0).String())
		if err == nil {
			_, err = io.ReadAll(c)
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
		h.do(func() {
			if n := l.Status(false).Stats.Rejected; n != 1 {
				t.Errorf("%d rejected", n)
			}
		})
	})
}

func (h *host) upstreams(l *listeners.Listener) (all []listeners.UpstreamStatus) {
	h.do(func() { all = l.Upstreams() })
	return all
}

// forward.wait holds a client until an upstream is back.
func TestForwardWait(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		nobody := gone(t)
		f := forwardTo(nobody)
		f.Health = &listeners.HealthCheck{Interval: 100 * time.Millisecond, Fall: 1}
		l := h.open(spec(t, f, "forward.wait=1h", "tcp://127.0.0.1:0"))
		eventually(t, func() bool { return !h.upstreams(l)[0].Healthy }, func() string { return "not down" })
		client, leaves := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
		io.WriteString(client, "hello")
		eventually(t, func() bool { return h.status(l).Active == 2 }, func() string { return "not accepted" })
		leaves.Close()
		s := backend(t, "tcp", nobody.String())
		got := make([]byte, 5)
		for got[0] == 0 { // those that say nothing are checks
			io.ReadFull(s.next(t), got)
		}
		if string(got) != "hello" {
			t.Errorf("%q", got)
		}
		if !h.upstreams(l)[0].Healthy {
			t.Error("still down")
		}
	})
}

// A connect that is not answered is given up in favour of the next.
func TestForwardConnectTimeout(t *testing.T) {
	h := newHost(t, "epoll", 0)
	s := backend(t, "tcp", "127.0.0.1:0")
	full, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) // its queue is full: SYNs are dropped
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	if err := errors.Join(unix.Bind(full, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(full, 0)); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(full)
	to := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}
	dial(t, to)
	f := forwardTo(to, s.Addr())
	f.Balance, f.ConnectTimeout = listeners.First, 50*time.Millisecond
	l := h.open(spec(t, f, "", "tcp://127.0.0.1:0"))
	dial(t, h.addr(l, 0))
	s.next(t)
	if st := h.upstreams(l); st[0].Failed != 1 || st[0].LastError == "" {
		t.Errorf("%+v", st)
	}
}

// A connection that waits, for its upstream or for who does not read, is
// listed, tuned, closed and drained as any other.
func TestForwardResting(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		f := forwardTo(gone(t))
		f.Health = &listeners.HealthCheck{Interval: 100 * time.Millisecond, Fall: 1}
		waiting := h.open(spec(t, f, "forward.wait=1h", "tcp://127.0.0.1:0"))
		eventually(t, func() bool { return !h.upstreams(waiting)[0].Healthy }, func() string { return "not down" })
		dial(t, h.addr(waiting, 0))
		s := backend(t, "tcp", "127.0.0.1:0")
		stuck := h.open(spec(t, forwardTo(s.Addr()), "", "tcp://127.0.0.1:0"))
		client := dial(t, h.addr(stuck, 0))
		s.next(t)
		go send(client, 1, 64<<20)
		eventually(t, func() bool {
			all := h.conns()
			const moves = mux.Readable | mux.Writable
			return len(all) == 2 && (all[0].Waits|all[1].Waits)&moves == 0
		}, func() string { return fmt.Sprintf("%+v", h.conns()) })
		for _, l := range []*listeners.Listener{waiting, stuck} {
			h.pause(l, listeners.Hold)
			h.do(func() { l.Drain(0) })
			eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not drained" })
		}
	})
}

// Upstreams are changed without a word to what is open; what is known of those
// that stay is kept.
func TestForwardChange(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		one, two := backend(t, "tcp", "127.0.0.1:0"), backend(t, "tcp", "127.0.0.1:0")
		first := spec(t, forwardTo(one.Addr()), "", "tcp://127.0.0.1:0")
		l := h.open(first)
		old := dial(t, h.addr(l, 0))
		oldUp := one.next(t)
		for _, to := range []*listeners.Forward{forwardTo(one.Addr(), two.Addr()), forwardTo(two.Addr())} {
			next := first
			next.Handler = to
			h.do(func() { l.Settle(next) })
			if st := h.upstreams(l); len(st) == 2 && (st[0].Active != 1 || st[0].Connects != 1) {
				t.Errorf("%+v", st)
			}
		}
		dial(t, h.addr(l, 0))
		two.next(t)
		io.WriteString(old, "still here")
		got := make([]byte, 10)
		if _, err := io.ReadFull(oldUp, got); err != nil || string(got) != "still here" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Weights, fewest connections, the source and the order are gone by.
func TestForwardBalance(t *testing.T) {
	h := newHost(t, "epoll", 0)
	var servers []*server
	var addrs []net.Addr
	for range 3 {
		s := backend(t, "tcp", "127.0.0.1:0")
		servers, addrs = append(servers, s), append(addrs, s.Addr())
	}
	for balance, want := range map[listeners.Balance][3]int{
		listeners.RoundRobin: {30, 20, 10}, listeners.LeastConnections: {30, 20, 10}, listeners.First: {60, 0, 0}, listeners.SourceHash: {},
	} {
		f := forwardTo(addrs...)
		f.Balance = balance
		for i := range f.Upstreams {
			f.Upstreams[i].Weight = uint32(3 - i)
		}
		l := h.open(spec(t, f, "", "tcp://127.0.0.1:0"))
		for range 60 {
			dial(t, h.addr(l, 0))
		}
		var got [3]int
		eventually(t, func() bool {
			total := 0
			for i, u := range h.upstreams(l) {
				got[i] = int(u.Connects)
				total += got[i]
			}
			return total == 60
		}, func() string { return fmt.Sprint(got) })
		if balance == listeners.SourceHash {
			if max(got[0], got[1], got[2]) != 60 {
				t.Errorf("of one source: %v", got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: %v, want %v", balance, got, want)
		}
	}
	for _, s := range servers {
		for len(s.conns) > 0 {
			(<-s.conns).Close()
		}
	}
}

// A name is resolved, off the loop.
func TestForwardName(t *testing.T) {
	h := newHost(t, "epoll", 0)
	s := backend(t, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(s.Addr().String())
	f := &listeners.Forward{Upstreams: []listeners.Upstream{{Address: "tcp4://localhost:" + port}}}
	l := h.open(spec(t, f, "forward.wait=20s", "tcp://127.0.0.1:0"))
	dial(t, h.addr(l, 0))
	s.next(t)
	if st := h.upstreams(l); len(st[0].Resolved) != 1 || st[0].Resolved[0].IP.Addr().String() != "127.0.0.1" {
		t.Errorf("%+v", st)
	}
}

// Each source of datagrams has a session of its own; an answer leaves from the
// address that was asked; who is silent is forgotten.
func TestForwardDatagrams(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		up := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
		upGram := h.open(spec(t, listeners.Echo{}, "", "unixgram://"+dir+"/up"))
		for _, to := range []net.Addr{h.addr(up, 0), h.addr(upGram, 0)} {
			l := h.open(spec(t, forwardTo(to), "forward.session_timeout=1s", "udp://[::]:0"))
			port := h.addr(l, 0).(*net.UDPAddr).Port
			var clients []net.Conn
			for i := range 20 {
				clients = append(clients, dial(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%5)), Port: port}))
			}
			for i, c := range clients {
				for j := range 3 {
					want := fmt.Sprint(i, "-", j)
					if got := ask(t, c, []byte(want)); string(got) != want {
						t.Fatalf("%q, want %q", got, want)
					}
				}
			}
			if st := h.upstreams(l); st[0].Active != 20 || st[0].Connects != 20 {
				t.Errorf("%+v", st)
			}
			eventually(t, func() bool { return h.upstreams(l)[0].Active == 0 }, func() string { return "sessions stay" })
			ask(t, clients[0], []byte("again"))
		}
	})
}

// The bound on sessions holds, and an upstream that is not there is told of.
func TestForwardDatagramLimits(t *testing.T) {
	h := newHost(t, "epoll", 0)
	up := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
	l := h.open(spec(t, forwardTo(h.addr(up, 0)), "forward.max_sessions=2", "udp://127.0.0.1:0"))
	for range 2 {
		ask(t, dial(t, h.addr(l, 0)), []byte("x"))
	}
	io.WriteString(dial(t, h.addr(l, 0)), "one too many")
	eventually(t, func() bool { return h.stats(l).Rejected > 0 }, func() string { return "not rejected" })
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	l = h.open(spec(t, forwardTo(nobody.LocalAddr()), "", "udp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	io.WriteString(c, "x")
	eventually(t, func() bool { u := h.upstreams(l)[0]; return u.Failed > 0 && u.Active == 0 }, func() string { return "not noticed" })
}

// Datagrams that come in a row go on in a row, each to the session of its
// source.
func TestForwardDatagramBurst(t *testing.T) {
	h := newHost(t, "epoll", 0)
	up := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
	l := h.open(spec(t, forwardTo(h.addr(up, 0)), "", "udp://127.0.0.1:0"))
	a, b := dial(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
	const burst = 100 // more than a batch
	h.do(func() {     // the loop finds all of them at once
		for i := range burst {
			fmt.Fprint(a, i)
			if i%10 == 0 {
				fmt.Fprint(b, i)
			}
		}
	})
	for i := range burst {
		if got := string(receive(t, a)); got != strconv.Itoa(i) {
			t.Fatalf("%q, want %d", got, i)
		}
		if i%10 == 0 {
			if got := string(receive(t, b)); got != strconv.Itoa(i) {
				t.Fatalf("the other source: %q, want %d", got, i)
			}
		}
	}
}

// A datagram upstream that refuses is left for the next, as one of connections.
func TestForwardDatagramNext(t *testing.T) {
	h := newHost(t, "epoll", 0)
	up := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	f := forwardTo(nobody.LocalAddr(), h.addr(up, 0))
	f.Balance = listeners.First
	l := h.open(spec(t, f, "", "udp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	answered := make(chan struct{})
	go func() {
		c.Read(make([]byte, 10))
		close(answered)
	}()
	eventually(t, func() bool {
		io.WriteString(c, "x")
		h.until(5 * time.Millisecond)
		select {
		case <-answered:
			return true
		default:
			return false
		}
	}, func() string { return fmt.Sprintf("%+v", h.upstreams(l)) })
	if st := h.upstreams(l); st[0].Healthy || !st[1].Healthy || st[0].Failed != 3 {
		t.Errorf("%+v", st)
	}
}
