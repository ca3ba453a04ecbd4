package listeners_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// halfCloser is what both TCP and Unix connections are.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// The peer ends its half first: what it has sent is answered, then our half is
// ended too. The server ends its half first: what the peer still sends is
// dropped, and it is not reset before it has read everything.
func TestHalfClose(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	eachWay(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		echo := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "unix://"+dir+"/e"))
		reply := h.open(spec(t, &listeners.Reply{Payload: want}, "send_buffer_bytes=16KiB", "tcp://127.0.0.1:0", "unix://"+dir+"/r"))
		for i := range 2 {
			c := dial(t, h.addr(echo, i)).(halfCloser)
			c.Write([]byte("last words"))
			c.CloseWrite()
			if got, err := readEnd(c); err != nil || got != "last words" {
				t.Errorf("%q, %v", got, err)
			}
			c = dial(t, h.addr(echo, i)).(halfCloser)
			c.CloseWrite()
			if got, err := readEnd(c); err != nil || got != "" {
				t.Errorf("%q, %v", got, err)
			}
			c = dial(t, h.addr(reply, i)).(halfCloser)
			if _, err := c.Write(make([]byte, 30_000)); err != nil { // less than what is tolerated
				t.Error(err)
			}
			if got, err := readEnd(c); err != nil || got != string(want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if conns := h.conns(); len(conns) != 1 || conns[0].State != listeners.ConnClosing {
				t.Errorf("%+v", conns)
			}
			if _, err := c.Write([]byte("after the end")); err != nil {
				t.Error(err)
			}
			c.Close()
			eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return "not closed" })
		}
	})
}

// Who goes on sending after the end is not listened to for ever.
func TestHalfCloseFlood(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Reply{Payload: []byte("bye")}, "", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	if _, err := io.Copy(c, zeros{}); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if st := h.stats(l); st.Received < 64<<10 {
		t.Errorf("closed after %d bytes", st.Received)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A reset by the peer ends the connection, whatever it was waiting for.
func TestResetByPeer(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		reply := h.open(spec(t, &listeners.Reply{Payload: make([]byte, 8<<20), KeepOpen: true}, "send_buffer_bytes=8KiB", "tcp://127.0.0.1:0"))
		for range 5 {
			c := dialSmall(t, h.addr(reply, 0)).(*net.TCPConn)
			h.owes(c)
			c.SetLinger(0)
			c.Close()
		}
		echo := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		for range 5 {
			c := dial(t, h.addr(echo, 0)).(*net.TCPConn)
			ask(t, c, []byte("x"))
			c.SetLinger(0)
			c.Close()
		}
		web := h.open(spec(t, &listeners.HTTP{}, "", "tcp://127.0.0.1:0"))
		for range 5 {
			c := dial(t, h.addr(web, 0)).(*net.TCPConn)
			io.WriteString(c, get[:10]) // kept
			eventually(t, func() bool {
				return slices.ContainsFunc(h.conns(), func(st listeners.ConnStatus) bool { return st.Received == 10 })
			}, func() string { return "not received" })
			c.SetLinger(0)
			c.Close()
			eventually(t, func() bool { return h.status(web).Active == 0 }, func() string { return "not closed" })
		}
		eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return fmt.Sprintf("left over: %+v", h.conns()) })
	})
}

// A peer that never reads costs a bounded amount, and no turns.
func TestPeerThatNeverReads(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "send_buffer_bytes=8KiB receive_buffer_bytes=8KiB read_buffer_bytes=4KiB write_buffer_bytes=16KiB", "tcp://127.0.0.1:0"))
		c := dialSmall(t, h.addr(l, 0))
		wrote := make(chan error)
		go func() {
			_, err := io.Copy(c, zeros{})
			wrote <- err
		}()
		h.owes(c)
		stuck := func() string {
			st := h.conns()[0]
			return fmt.Sprint(st.Received, st.Sent, st.Queue, st.Waits)
		}
		before := stuck()
		eventually(t, func() bool { now := stuck(); same := now == before; before = now; return same }, func() string { return "still moves" })
		st := h.conns()[0]
		if q := st.Queue; q.UserSend > 16<<10 || q.UserReceive > 4<<10 || st.Waits.Names()[0] != "writable" {
			t.Errorf("%+v, waits for %v", q, st.Waits.Names())
		}
		if n := h.turns(func() { h.until(30 * time.Millisecond) }); n > 5 {
			t.Errorf("%d turns", n)
		}
		ask(t, dial(t, h.addr(l, 0)), []byte("others are served"))
		c.Close()
		<-wrote
	})
}

// A slow reader gets everything, in order, from a server that has finished long
// ago.
func TestSlowReader(t *testing.T) {
	want := make([]byte, 300_000)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(want)
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.Reply{Payload: want}, "send_buffer_bytes=8KiB", "tcp://127.0.0.1:0"))
		c := dialSmall(t, h.addr(l, 0))
		h.owes(c)
		var got []byte
		for buf := make([]byte, 1000); ; {
			n, err := c.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d of %d bytes", len(got), len(want))
		}
	})
}

// One byte at a time is as good as all at once.
func TestSlowWriter(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		echo := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		web := h.open(spec(t, &listeners.HTTP{Body: []byte("hello")}, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(echo, 0))
		for i := range 300 {
			if got := ask(t, c, []byte{byte(i)}); len(got) != 1 || got[0] != byte(i) {
				t.Fatalf("%d: %v", i, got)
			}
		}
		c = dial(t, h.addr(web, 0))
		r := bufio.NewReader(c)
		for range 3 {
			for _, b := range []byte(get) {
				c.Write([]byte{b})
			}
			if resp := answer(t, c, r); resp.status != http.StatusOK || resp.closes {
				t.Errorf("%+v", resp)
			}
		}
	})
}

// A connection that ends in the middle of something leaves nothing behind.
func TestEndsWithKeptInput(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		web := h.open(spec(t, &listeners.HTTP{}, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(web, 0)).(halfCloser)
		io.WriteString(c, get+get[:10])
		c.CloseWrite()
		r := bufio.NewReader(c)
		if resp := answer(t, c, r); resp.status != http.StatusOK {
			t.Errorf("%+v", resp)
		}
		ends(t, "half a request", c, r)
		echo := h.open(spec(t, listeners.Echo{}, "write_buffer_bytes=1KiB send_buffer_bytes=4KiB read_buffer_bytes=64KiB", "tcp://127.0.0.1:0"))
		for _, how := range []string{"close", "half"} {
			c := dialSmall(t, h.addr(echo, 0)).(halfCloser)
			sent := make(chan int)
			go func() {
				n, _ := c.Write(make([]byte, 200_000))
				sent <- n
			}()
			eventually(t, func() bool {
				return slices.ContainsFunc(h.conns(), func(st listeners.ConnStatus) bool { return st.Queue.UserReceive > 0 && st.Queue.UserSend > 0 })
			}, func() string { return "nothing is kept" })
			if how == "close" {
				c.Close()
				<-sent
				continue
			}
			got := make(chan string)
			go func() {
				s, _ := readEnd(c)
				got <- s
			}()
			<-sent
			c.CloseWrite()
			if s := <-got; len(s) != 200_000 {
				t.Errorf("%d bytes came back", len(s))
			}
		}
		eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return "left over" })
	})
}

// An empty message is no end, one that is too long is, and a message is not
// joined with another.
func TestPacketSizes(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "read_buffer_bytes=4KiB", "unixpacket://"+dir+"/p"))
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: dir + "/p"}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		for i, size := range []int{0, 1, 0, 0, 4096, 2, 0} {
			if err := unix.Send(fd, make([]byte, size), 0); err != nil {
				t.Fatal(err)
			}
			if size == 0 {
				continue // an empty answer would be the end to most clients
			}
			if n, err := unix.Read(fd, buf); n != size || err != nil {
				t.Errorf("message %d: %d of %d bytes, %v", i, n, size, err)
			}
		}
		if err := unix.Send(fd, make([]byte, 10_000), 0); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(fd, buf); n > 0 || err != nil && err != unix.ECONNRESET {
			t.Errorf("%d bytes, %v", n, err)
		}
		eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return "not closed" })

		c := dial(t, h.addr(l, 0)).(halfCloser) // an empty message before others, and then the end
		c.Write(nil)
		c.Write([]byte("x"))
		c.CloseWrite()
		if got, err := readEnd(c); err != nil || got != "x" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Buffers may be tuned while they are full.
func TestBuffersTuned(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "send_buffer_bytes=4KiB", "tcp://127.0.0.1:0"))
		c := dialSmall(t, h.addr(l, 0)).(halfCloser)
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
		go func() {
			c.Write(want)
			c.CloseWrite()
		}()
		h.owes(c)
		for i, sizes := range [][2]string{{"1KiB", "1KiB"}, {"1MiB", "1KiB"}, {"1KiB", "64MiB"}, {"", ""}} {
			h.tune(l, "read_buffer_bytes", sizes[0])
			h.tune(l, "write_buffer_bytes", sizes[1])
			part := make([]byte, 100_000)
			if _, err := io.ReadFull(c, part); err != nil || !bytes.Equal(part, want[i*100_000:][:100_000]) {
				t.Fatalf("part %d: %v", i, err)
			}
		}
		if rest, err := readEnd(c); err != nil || rest != string(want[400_000:]) {
			t.Errorf("%d bytes, %v", len(rest), err)
		}
	})
}

// A thousand connections come and go at random, on all stream networks, with
// half-closes, resets and slow readers; every byte is checked.
func TestRandomConnections(t *testing.T) {
	const clients, each = 20, 50
	eachWay(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "write_buffer_bytes=4KiB send_buffer_bytes=8KiB max_connections=15 backlog=64",
			"tcp://127.0.0.1:0", "tcp://[::1]:0", "unix://"+dir+"/s", "unixpacket://"+dir+"/p"))
		to := []net.Addr{h.addr(l, 0), h.addr(l, 1), h.addr(l, 2), h.addr(l, 3)}
		var wg sync.WaitGroup
		for i := range clients {
			random := rand.New(rand.NewPCG(uint64(i), 42))
			wg.Go(func() {
				for range each {
					if err := randomConnection(to[random.IntN(len(to))], random); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		eventually(t, func() bool { st := h.status(l); return st.Active == 0 && st.Queue.Accept == 0 }, func() string { return fmt.Sprintf("%+v", h.status(l)) })
		if st := h.stats(l); st.Accepted != clients*each || st.Rejected != 0 || st.Sent > st.Received {
			t.Errorf("counted %+v", st)
		}
	})
}

func randomConnection(to net.Addr, random *rand.Rand) error {
	nc, err := net.Dial(to.Network(), to.String())
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(60 * time.Second))
	c := nc.(halfCloser)
	data := make([]byte, random.IntN(40_000))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	cut := len(data)
	ending := random.IntN(4)
	if ending == 0 { // gone without reading it all
		cut = random.IntN(len(data) + 1)
	}
	done := make(chan error, 1)
	chunk := 1 + random.IntN(5000)
	go func() {
		for part := range slices.Chunk(data, chunk) {
			if _, err := c.Write(part); err != nil {
				done <- err
				return
			}
		}
		done <- c.CloseWrite()
	}()
	got := make([]byte, cut)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data[:cut]) {
		return fmt.Errorf("%v: %d bytes: %w", to, cut, err)
	}
	if ending == 0 {
		if tcp, ok := c.(*net.TCPConn); ok && random.IntN(2) == 0 {
			tcp.SetLinger(0)
		}
		c.Close()
		<-done
		return nil
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		return fmt.Errorf("%v: after the end: %d bytes, %w", to, len(rest), err)
	}
	return <-done
}

// Listeners are stopped, drained, tuned and retargeted at random moments while
// clients come and go: whoever is answered is answered right, and nothing is
// left over.
func TestRandomChanges(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		random := rand.New(rand.NewPCG(7, 7))
		for range 15 {
			l := h.open(spec(t, listeners.Echo{}, fmt.Sprintf("max_connections=%d", random.IntN(4)), "tcp://127.0.0.1:0", "unix://@sockmgr-random"))
			to := []net.Addr{h.addr(l, 0), h.addr(l, 1)}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() { someTalk(t, to[i%2]) })
			}
			for range random.IntN(10) {
				option := []string{"idle_timeout=10ms", "max_connections=2", "max_connections=0", "backlog=3", "linger=0s", "send_buffer_bytes=8KiB", "idle_timeout=0"}[random.IntN(7)]
				name, value, _ := strings.Cut(option, "=")
				h.tune(l, name, value)
			}
			drain := []time.Duration{0, time.Millisecond, longTime}[random.IntN(3)]
			h.do(func() { l.Stop(drain) })
			wg.Wait()
			eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return fmt.Sprintf("drain of %v: %+v", drain, h.status(l)) })
		}
	})
}

// someTalk echoes until it is told to end, and checks what comes back.
func someTalk(t *testing.T, to net.Addr) {
	c, err := net.Dial(to.Network(), to.String())
	if err != nil {
		return // it is stopped already
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	for i := range 20 {
		want := fmt.Sprint("message ", i)
		if _, err := io.WriteString(c, want); err != nil {
			return
		}
		got := make([]byte, len(want))
		n, err := io.ReadFull(c, got)
		if string(got[:n]) != want[:n] {
			t.Errorf("got %q", got[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("no answer and no end: %v", err)
		}
		if err != nil {
			return
		}
	}
}

// Clients that reset while they wait are taken, and gone; the others are
// served.
func TestResetInQueue(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		for name, handler := range map[string]listeners.HandlerSpec{"echo": listeners.Echo{}, "reply": &listeners.Reply{Payload: []byte("x")}, "http": &listeners.HTTP{}} {
			l := h.open(spec(t, handler, "max_connections=1", "tcp://127.0.0.1:0"))
			h.do(func() { // so that they wait, whatever the handler
				for range 10 {
					c, err := net.Dial("tcp", l.Status(false).Bound[0].IP.String())
					if err != nil {
						t.Error(err)
						return
					}
					io.WriteString(c, "GET")
					c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
			})
			eventually(t, func() bool { st := h.status(l); return st.Stats.Accepted == 10 && st.Active == 0 }, func() string { return fmt.Sprintf("%s: %+v", name, h.status(l)) })
		}
	})
}
