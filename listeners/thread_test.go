package listeners_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// given has the connections that the handler func "given" was called with; it
// returns when the test closes them.
var given = make(chan *heldView, 100)

type heldView struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (c *heldView) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

func (c *heldView) CloseWrite() error { return c.Conn.(halfCloser).CloseWrite() }

func init() {
	listeners.HandleFunc("given", func(c net.Conn) {
		h := &heldView{Conn: c, done: make(chan struct{})}
		given <- h
		<-h.done
	})
	listeners.HandleFunc("panics", func(net.Conn) { panic("as the test wants") })
	// The tutorial's threading server: what each client says, in capitals.
	listeners.HandleFunc("capitals", func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			if _, err := c.Write(bytes.ToUpper(line)); err != nil {
				return
			}
		}
	})
}

// What a blocking handler gets is a net.Conn in every respect.
func TestThreadConn(t *testing.T) {
	h := newHost(t, "epoll", 0)
	for _, where := range []string{"tcp://127.0.0.1:0", "unix://" + filepath.Join(shortDir(t), "s")} {
		l := h.open(spec(t, &listeners.Func{Name: "given"}, "", where))
		to := h.addr(l, 0)
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			client, err := net.Dial(to.Network(), to.String())
			if err != nil {
				return nil, nil, nil, err
			}
			server := <-given
			return server, client, func() { server.Close(); client.Close() }, nil
		})
	}
}

// Both sides have the addresses that the other sees.
func TestThreadAddresses(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Func{Name: "given"}, "", "tcp://127.0.0.1:0"))
	client := dial(t, h.addr(l, 0))
	server := <-given
	defer server.Close()
	if server.RemoteAddr().String() != client.LocalAddr().String() || server.LocalAddr().String() != client.RemoteAddr().String() {
		t.Errorf("the server sees %v to %v, the client %v to %v", server.RemoteAddr(), server.LocalAddr(), client.LocalAddr(), client.RemoteAddr())
	}
}

// A peer that is not listened to is held up by TCP, not by the daemon's memory.
func TestThreadBackPressure(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Func{Name: "given"}, "read_buffer_bytes=16KiB receive_buffer_bytes=16KiB", "tcp://127.0.0.1:0"))
	client := dial(t, h.addr(l, 0))
	server := <-given
	sent := make(chan int)
	const all = 32 << 20
	go func() {
		n, _ := client.Write(make([]byte, all))
		sent <- n
	}()
	eventually(t, func() bool {
		c := h.conns()[0]
		return c.Queue.UserReceive >= 16<<10 && c.Waits&mux.Readable == 0
	}, func() string { return fmt.Sprintf("%+v", h.conns()) })
	if c := h.conns()[0]; c.Queue.UserReceive > 32<<10 {
		t.Errorf("%d bytes were read ahead", c.Queue.UserReceive)
	}
	n, err := io.CopyN(io.Discard, server, all)
	if n != all || err != nil || <-sent != all {
		t.Errorf("%d bytes came: %v", n, err)
	}
	server.Close()
}

// A handler that panics ends its own connection and nothing else.
func TestThreadPanic(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Func{Name: "panics"}, "", "tcp://127.0.0.1:0"))
	for range 3 {
		c := dial(t, h.addr(l, 0))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
}

// Whatever waits is told when the daemon closes the connection.
func TestThreadClosedByOthers(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Func{Name: "given"}, "send_buffer_bytes=8KiB", "tcp://127.0.0.1:0"))
	dial(t, h.addr(l, 0))
	server := <-given
	defer server.Close()
	ended := make(chan error, 2)
	go func() {
		_, err := server.Read(make([]byte, 1))
		ended <- err
	}()
	go func() {
		_, err := server.Write(make([]byte, 16<<20)) // nobody reads
		ended <- err
	}()
	eventually(t, func() bool { return h.conns()[0].Queue.UserSend > 0 }, func() string { return "nothing waits" })
	h.tune(l, "idle_timeout", "1ms")
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("no error")
		}
	}
}

// What is open goes on when the listener goes from one way to another.
func TestThreadLive(t *testing.T) {
	h := newHost(t, "epoll", 0)
	on := spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0")
	l := h.open(on)
	says := func(c net.Conn) {
		t.Helper()
		io.WriteString(c, "hello")
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Error(err)
		}
	}
	var conns []net.Conn
	for range 3 {
		for _, way := range []listeners.Concurrency{listeners.OnLoop, listeners.InThread} {
			s, err := on.WithConcurrency(way)
			if err != nil {
				t.Fatal(err)
			}
			h.do(func() { l.Retarget(s) })
			conns = append(conns, dial(t, h.addr(l, 0)))
			for _, c := range conns {
				says(c)
			}
		}
	}
}

// The tutorial's threading server: many clients for a long time, each with a
// thread of its own, and none waits for another.
func TestThreadingServer(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Func{Name: "capitals"}, "", "tcp://127.0.0.1:0"))
	conns := make([]net.Conn, 500)
	for i := range conns {
		conns[i] = dial(t, h.addr(l, 0))
	}
	for round := range 5 {
		var wg sync.WaitGroup
		for i, c := range conns {
			wg.Go(func() {
				if i%10 == 0 { // begins, and is slow to end
					io.WriteString(c, "slow")
				}
				fmt.Fprintf(c, "client %d round %d\n", i, round)
				want := fmt.Sprintf("CLIENT %d ROUND %d\n", i, round)
				if i%10 == 0 {
					want = "SLOW" + want
				}
				if got, err := bufio.NewReader(c).ReadString('\n'); got != want || err != nil {
					t.Errorf("%q, want %q: %v", got, want, err)
				}
			})
		}
		wg.Wait()
	}
	if st := h.status(l); st.Active != int64(len(conns)) {
		t.Errorf("%d are open", st.Active)
	}
}

// The tutorial's web server, on the loop and with threads.
func TestHelloWorld(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.HTTP{Body: []byte("Hello, World")}, "", "tcp://127.0.0.1:0"))
		client := http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for range 3 {
			resp, err := client.Get("http://" + h.addr(l, 0).String() + "/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "Hello, World" || err != nil {
				t.Errorf("%q: %v", body, err)
			}
		}
	})
}

// A Write that is late says how much the kernel took; what follows goes on from
// there.
func TestThreadLateWrite(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Func{Name: "given"}, "send_buffer_bytes=8KiB", "tcp://127.0.0.1:0"))
	client := dialSmall(t, h.addr(l, 0))
	server := <-given
	defer server.Close()
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(i >> 10)
	}
	server.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	n, err := server.Write(data)
	if n == 0 || n == len(data) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes: %v", n, err)
	}
	server.SetWriteDeadline(time.Time{})
	go func() {
		server.Write(data[n:])
		server.CloseWrite()
	}()
	if got, err := io.ReadAll(client); !bytes.Equal(got, data) || err != nil {
		t.Errorf("%d bytes, %d were sent: %v", len(got), len(data), err)
	}
}

// What cannot have threads says why.
func TestThreadRefused(t *testing.T) {
	up := listeners.Upstream{Address: "tcp://127.0.0.1:1"}
	for want, s := range map[string]listeners.Spec{
		"spec.concurrency: thread is not for the echo handler of datagrams: it has loop": spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"),
		"spec.concurrency: thread is not for the handoff handler: it has loop":           spec(t, &listeners.Handoff{Path: "/x"}, "", "tcp://127.0.0.1:0"),
		"spec.concurrency: thread is not for the forward handler with routes: it has loop": spec(t, &listeners.Forward{Routes: []listeners.Route{{
			Names: []string{"a.example"}, Upstreams: []listeners.Upstream{up},
		}}}, "", "tcp://127.0.0.1:0"),
	} {
		if _, err := s.WithConcurrency(listeners.InThread); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
