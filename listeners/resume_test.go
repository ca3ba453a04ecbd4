package listeners_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// stream sends and takes back bytes, and wants them to be the same ones.
func stream(t *testing.T, c net.Conn, size int, slow bool) {
	t.Helper()
	sent, seed := make([]byte, size), rand.Uint64()
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = random.Read(sent)
	var both sync.WaitGroup
	both.Go(func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+rand.N(64<<10))
			if _, err := c.Write(rest[:n]); err != nil {
				t.Errorf("write after %d bytes: %v", size-len(rest), err)
				return
			}
			rest = rest[n:]
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	got, buf := make([]byte, 0, size), make([]byte, 256<<10)
	for {
		n := len(buf)
		if slow {
			n = 1 + rand.N(20<<10)
		}
		n, err := c.Read(buf[:n])
		got = append(got, buf[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Errorf("read after %d bytes: %v", len(got), err)
			break
		}
	}
	both.Wait()
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(sent))
	}
}

// echoServer echoes until the test ends, and returns its address.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "tcp://" + l.Addr().String()
}

// Streams go through echo and forward byte for byte, fast and slow, while all of
// it moves again and again; now and then a move fails at the last moment.
func TestResumeStreams(t *testing.T) {
	m := newMover(t)
	up := echoServer(t)
	forward := &listeners.Forward{Upstreams: []listeners.Upstream{{Address: up}}}
	dir := shortDir(t)
	for name, s := range map[string]listeners.Spec{
		"echo":    spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"),
		"unix":    spec(t, listeners.Echo{}, "", "unix://"+dir+"/s"),
		"small":   spec(t, listeners.Echo{}, "write_buffer_bytes=4096 read_buffer_bytes=4096", "tcp://127.0.0.1:0"),
		"paced":   spec(t, listeners.Echo{}, "read_rate_bytes=8000000 listener_write_rate_bytes=20000000", "tcp://127.0.0.1:0"),
		"late":    spec(t, listeners.Echo{}, "fault.delay=5ms fault.slice_bytes=30000", "tcp://127.0.0.1:0"),
		"forward": spec(t, forward, "", "tcp://127.0.0.1:0"),
		"lateup":  spec(t, forward, "fault.delay=3ms", "tcp://127.0.0.1:0"),
		"limited": spec(t, listeners.Echo{}, "max_connections=2", "tcp://127.0.0.1:0"),
	} {
		m.open(name, s)
	}
	var clients sync.WaitGroup
	for name := range m.ls {
		to := m.addr(name)
		for i := range 4 {
			c, err := net.Dial(to.Network(), to.String())
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			clients.Go(func() {
				defer c.Close()
				stream(t, c, 1<<20, i%2 == 1)
			})
		}
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	moves := 0
	for over := false; !over; moves++ {
		m.move(moves%5 == 4)
		timer := time.NewTimer(5 * time.Millisecond)
		select {
		case <-done:
			over = true
		case <-timer.C:
		}
	}
	t.Logf("%d moves", moves)
	for name := range m.ls {
		eventually(t, func() bool { return m.status(name).Active == 0 }, func() string { return name + " has connections" })
		if st := m.status(name); st.Stats.Accepted != 4 || st.Stats.Received != 4*1<<20 || st.Stats.Sent != 4*1<<20 {
			t.Errorf("%s: %+v", name, st.Stats)
		}
	}
}

// A request in pieces is answered whichever piece the move comes after, and the
// connection is kept.
func TestResumeHTTP(t *testing.T) {
	m := newMover(t)
	m.open("web", spec(t, &listeners.HTTP{Body: []byte("Hello, World")}, "", "tcp://127.0.0.1:0"))
	c := dial(t, m.addr("web"))
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		for at := 1; at < len(request); at += 7 {
			io.WriteString(c, request[:at])
			eventually(t, func() bool {
				all := 0
				m.do(func() error {
					conns, _ := m.set.Conns(listeners.ConnQuery{Detail: listeners.DetailFull}, 0, 10)
					all = int(conns[0].Queue.Receive)
					return nil
				})
				return all == 0
			}, func() string { return "not read" })
			m.move(false)
			io.WriteString(c, request[at:])
			buf := make([]byte, 4096)
			n, err := io.ReadAtLeast(c, buf, 100)
			for err == nil && !strings.Contains(string(buf[:n]), "Hello, World") {
				var k int
				k, err = c.Read(buf[n:])
				n += k
			}
			if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") || strings.Count(string(buf[:n]), "HTTP/") != 1 {
				t.Fatalf("cut at %d of %q: %q, %v", at, request, buf[:n], err)
			}
		}
	}
	// The handler was changed since, and the connection has the old one.
	m.do(func() error {
		s := m.ls["web"].Spec()
		s.Handler = &listeners.HTTP{Body: []byte("other")}
		m.ls["web"].Settle(s)
		return nil
	})
	for range 2 {
		m.move(false)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		buf := make([]byte, 4096)
		if n, err := c.Read(buf); err != nil || !strings.HasSuffix(string(buf[:n]), "\r\n\r\nHello, World") {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}
	other := dial(t, m.addr("web"))
	io.WriteString(other, "GET / HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(other); err != nil || !strings.HasSuffix(string(got), "\r\n\r\nother") {
		t.Errorf("%q, %v", got, err)
	}
}

// Datagrams are answered, forwarded and answered by the upstream across moves.
func TestResumeDatagrams(t *testing.T) {
	m := newMover(t)
	m.open("echo", spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
	up := m.addr("echo")
	m.open("forward", spec(t, &listeners.Forward{Upstreams: []listeners.Upstream{{Address: "udp://" + up.String()}}}, "", "udp://127.0.0.1:0"))
	m.open("late", spec(t, listeners.Echo{}, "fault.delay=50ms", "udp://127.0.0.1:0"))
	a, b, late := dial(t, m.addr("echo")), dial(t, m.addr("forward")), dial(t, m.addr("late"))
	for range 5 {
		ask(t, a, []byte("hello"))
		ask(t, b, []byte("hello"))
		io.WriteString(late, "hold on")
		m.move(false)
		buf := make([]byte, 100)
		if n, err := late.Read(buf); err != nil || string(buf[:n]) != "hold on" {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}
	if st := m.status("forward"); len(st.Upstreams) != 1 || st.Upstreams[0].Connects != 1 || st.Upstreams[0].Active != 1 {
		t.Errorf("%+v", st.Upstreams)
	}
}

// What a listener is doing it does on: paused in each mode, limited, draining.
func TestResumeStates(t *testing.T) {
	m := newMover(t)
	dir := shortDir(t)
	hold := m.open("hold", spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"))
	refuse := m.open("refuse", spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	m.open("limited", spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0"))
	drains := m.open("drains", spec(t, listeners.Echo{}, "", "unix://"+dir+"/d"))
	first, second := dial(t, m.addr("limited")), dial(t, m.addr("limited"))
	ask(t, first, []byte("x"))
	eventually(t, func() bool { return m.status("limited").State == listeners.Limited }, func() string { return "not limited" })
	open := dial(t, m.addr("drains"))
	ask(t, open, []byte("x"))
	waits := dial(t, m.addr("hold"))
	ask(t, waits, []byte("x"))
	m.do(func() error {
		err := errors.Join(hold.Pause(listeners.Hold), refuse.Pause(listeners.Refuse), drains.Pause(listeners.Hold))
		drains.Drain(time.Minute)
		return err
	})
	queued := dial(t, m.addr("hold"))
	to := m.addr("refuse")
	for range 3 {
		m.move(false)
	}
	for name, want := range map[string]listeners.State{"hold": listeners.Paused, "refuse": listeners.Paused, "limited": listeners.Limited, "drains": listeners.Draining} {
		if st := m.status(name); st.State != want {
			t.Errorf("%s is %v", name, st.State)
		}
	}
	if c, err := net.Dial("tcp", to.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(c, err)
	}
	ask(t, open, []byte("y"))
	open.Close()
	eventually(t, func() bool { return m.status("drains").State == listeners.Paused }, func() string { return "not drained" })
	m.do(func() error { return errors.Join(m.ls["hold"].Resume(), m.ls["refuse"].Resume()) })
	ask(t, queued, []byte("z"))
	ask(t, dial(t, to), []byte("z"))
	first.Close()
	ask(t, second, []byte("z"))
	second.Close()
	eventually(t, func() bool { return m.status("limited").State == listeners.Running }, func() string { return "still limited" })
	if _, err := os.Stat(dir + "/d"); err != nil {
		t.Error(err)
	}
}

// What comes before a handler's turn is waited for on: the PROXY header.
func TestResumePreface(t *testing.T) {
	m := newMover(t)
	s := spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0")
	s, err := s.WithProxy(listeners.ProxyPolicy{Mode: listeners.ProxyRequired})
	if err != nil {
		t.Fatal(err)
	}
	m.open("proxy", s)
	c := dial(t, m.addr("proxy"))
	io.WriteString(c, "PROXY TCP4 192.0.2.1 ")
	m.move(false)
	io.WriteString(c, "192.0.2.2 1000 2000\r\n")
	ask(t, c, []byte("hello"))
	m.move(false)
	ask(t, c, []byte("hello"))
	m.do(func() error {
		conns, _ := m.set.Conns(listeners.ConnQuery{}, 0, 10)
		if len(conns) != 1 || conns[0].Proxied.IP != netip("192.0.2.1", 1000) {
			t.Errorf("%+v", conns)
		}
		return nil
	})
}

// A deadline that was set before a move is kept after it.
func TestResumeDeadlines(t *testing.T) {
	m := newMover(t)
	m.open("idle", spec(t, listeners.Echo{}, "idle_timeout=300ms", "tcp://127.0.0.1:0"))
	m.open("web", spec(t, &listeners.HTTP{Body: []byte("Hello, World")}, "http.request_timeout=300ms", "tcp://127.0.0.1:0"))
	began := time.Now()
	idle, web := dial(t, m.addr("idle")), dial(t, m.addr("web"))
	ask(t, idle, []byte("x"))
	io.WriteString(web, "GET")
	m.move(false)
	for name, c := range map[string]net.Conn{"idle": idle, "web": web} {
		rest, err := io.ReadAll(c)
		if d := time.Since(began); err != nil || d < 250*time.Millisecond || name == "web" != strings.HasPrefix(string(rest), "HTTP/1.1 408") {
			t.Errorf("%s: %q after %v, %v", name, rest, d, err)
		}
	}
}
