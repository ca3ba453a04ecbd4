package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// gush writes until the other end takes no more, or the connection has ended.
func gush(c net.Conn) error {
	data := make([]byte, 64<<10)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Write(data); err != nil {
			return err
		}
	}
}

// A peer that reads nothing for write_timeout is reset; what it takes, however
// slowly, gives it that time anew, and who waits for a rate of ours is not ended.
func TestWriteTimeout(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l, counters := h.openCounted(spec(t, listeners.Echo{}, "write_timeout=400ms send_buffer_bytes=16KiB", "tcp://127.0.0.1:0"))
		deaf, slow, idle := dialSmall(t, h.addr(l, 0)), dialSmall(t, h.addr(l, 0)), dial(t, h.addr(l, 0))
		ask(t, idle, []byte("x"))
		go gush(deaf)
		sent := make(chan error, 1)
		go func() {
			_, err := slow.Write(make([]byte, 350_000))
			sent <- err
		}()
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		began, got := time.Now(), 0
		for got < 350_000 { // at more than a segment in 20 ms, for longer than the time
			<-pace.C
			n, err := slow.Read(make([]byte, 10_000))
			if err != nil {
				t.Fatalf("after %v and %d bytes: %v", time.Since(began), got, err)
			}
			got += n
		}
		if err := <-sent; err != nil || time.Since(began) < 600*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		eventually(t, func() bool { return counters().ClosedBy[listeners.ClosedByStall] == 1 }, func() string { return "not ended" })
		if _, err := io.Copy(io.Discard, deaf); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer was told %v", err)
		}
		ask(t, slow, []byte("x"))
		ask(t, idle, []byte("x"))
		h.tune(l, "write_timeout", "0")
		h.tune(l, "write_rate_bytes", "4000")
		paced := dial(t, h.addr(l, 0))
		if err := gush(paced); !errors.Is(err, syscall.EAGAIN) && !isTimeout(err) {
			t.Error(err)
		}
		h.tune(l, "write_timeout", "50ms")
		h.until(300 * time.Millisecond)
		if by := counters().ClosedBy; by[listeners.ClosedByStall] != 1 {
			t.Errorf("closed: %v", by)
		}
	})
}

// Who reads steadily is not ended, though the kernel takes nothing for longer than
// the time: it does so only when a third of its buffer is free.
func TestSteadyReaderStays(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		l, counters := h.openCounted(spec(t, &listeners.HTTP{Body: make([]byte, 4<<20)}, "write_timeout=500ms send_buffer_bytes=1MiB", "tcp://127.0.0.1:0"))
		c := dialSmall(t, h.addr(l, 0))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for began := time.Now(); time.Since(began) < 2*time.Second; {
			<-pace.C
			if _, err := io.ReadFull(c, make([]byte, 4_000)); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		h.wantClosed(l, counters, listeners.ClosedByStall, 1) // it reads no more
	})
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// Either side of a forward may be the one that does not read.
func TestWriteTimeoutOfForward(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		upstream, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer upstream.Close()
		l, counters := h.openCounted(spec(t, &listeners.Forward{Upstreams: []listeners.Upstream{{Address: "tcp://" + upstream.Addr().String()}}},
			"write_timeout=200ms send_buffer_bytes=16KiB", "tcp://127.0.0.1:0"))
		for _, loud := range []string{"client", "upstream"} {
			client := dialSmall(t, h.addr(l, 0))
			server, err := upstream.Accept()
			if err != nil {
				t.Fatal(err)
			}
			speaks, deaf := client, server
			if loud == "upstream" {
				speaks, deaf = server, client
			}
			_ = deaf.(*net.TCPConn).SetReadBuffer(16 << 10)
			err = gush(speaks)
			for isTimeout(err) {
				err = gush(speaks)
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s: %v", loud, err)
			}
			if _, err := io.Copy(io.Discard, deaf); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("who does not hear the %s is told %v", loud, err)
			}
			server.Close()
		}
		h.wantClosed(l, counters, listeners.ClosedByStall, 2)
	})
}

// Beyond listener_write_buffer_bytes little is read for those who do not read,
// others are served, and the first are ended. What was kept for them counts no
// more.
func TestListenerWriteBuffer(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l, counters := h.openCounted(spec(t, listeners.Echo{}, "listener_write_buffer_bytes=100KiB send_buffer_bytes=16KiB", "tcp://127.0.0.1:0"))
	honest := dial(t, h.addr(l, 0))
	var deaf []net.Conn
	for range 50 {
		c := dialSmall(t, h.addr(l, 0))
		_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
		deaf = append(deaf, c)
	}
	for _, c := range deaf {
		if err := gush(c); !isTimeout(err) {
			t.Fatal(err)
		}
	}
	held := func() (n uint64) {
		h.do(func() {
			conns, _ := h.set.Conns(listeners.ConnQuery{Detail: listeners.DetailFull}, 0, 1000)
			for _, c := range conns {
				n += c.Queue.UserSend + c.Queue.UserReceive
			}
		})
		return n
	}
	if n := held(); n > 512<<10 { // and not 50 times 64 KiB
		t.Errorf("%d bytes are held", n)
	}
	ended := func() uint64 { return counters().ClosedBy[listeners.ClosedBySlow] }
	eventually(t, func() bool {
		ask(t, honest, make([]byte, 100))
		return ended() > 0 && held() < 100<<10
	}, func() string { return fmt.Sprintf("%d bytes are held", held()) })
	h.until(200 * time.Millisecond)
	if n := ended(); n == 50 || n+uint64(h.status(l).Active) != 51 {
		t.Errorf("%d were ended, more than there had to be", n)
	}
	for _, c := range deaf {
		c.Close()
	}
	eventually(t, func() bool { return h.status(l).Active == 1 }, func() string { return "not closed" })
	again := dialSmall(t, h.addr(l, 0)) // there is room: all of it is kept
	if err := gush(again); !isTimeout(err) {
		t.Fatal(err)
	}
	if n := held(); n < 30_000 {
		t.Errorf("%d bytes are held", n)
	}
}
