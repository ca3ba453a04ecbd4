package listeners_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// One side has finished, and then is gone altogether: nobody need write to it
// for that to be noticed.
func TestForwardGoneAfterFIN(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		if h.loop.Poller() == "select" {
			t.Skip("select(2) does not tell of it")
		}
		dir := shortDir(t)
		for _, networks := range [][3]string{{"tcp://127.0.0.1:0", "tcp", "127.0.0.1:0"}, {"unix://" + dir + "/in", "unix", dir + "/up"}} {
			s := backend(t, networks[1], networks[2])
			l := h.open(spec(t, forwardTo(s.Addr()), "", networks[0]))
			for i := range 4 {
				client := dial(t, h.addr(l, 0))
				up := s.next(t)
				ends, stays := client, up
				if i%2 == 1 {
					ends, stays = up, client
				}
				io.WriteString(ends, "all there is")
				closeWrite(t, ends)
				if got, err := io.ReadAll(stays); string(got) != "all there is" || err != nil {
					t.Errorf("%d: %q, %v", i, got, err)
				}
				resetting(ends)
				eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "the relay stays" })
				stays.Close()
			}
			h.do(func() { l.Stop(0) })
			s.Close()
		}
	})
}

// resetting closes with RST, where the network has one.
func resetting(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// A client that is reset is not kept because its upstream does not read.
func TestForwardResetWhileHeldUp(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		if h.loop.Poller() == "select" {
			t.Skip("select(2) does not tell of it")
		}
		s := backend(t, "tcp", "127.0.0.1:0")
		l := h.open(spec(t, forwardTo(s.Addr()), "", "tcp://127.0.0.1:0"))
		client := dial(t, h.addr(l, 0))
		up := s.next(t)
		h.holdUp(l, client)
		resetting(client)
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "the relay stays" })
		if _, _, err := hashed(up); err == nil {
			t.Error("the upstream takes it for the end")
		}
	})
}

// holdUp sends until the listener takes no more. A little at a time: RST beyond
// a window that is full is not believed.
func (h *host) holdUp(l *listeners.Listener, client net.Conn) {
	h.t.Helper()
	piece := make([]byte, 32<<10)
	for sent, taken := 0, true; taken; {
		n, err := client.Write(piece)
		if sent += n; err != nil || sent > 64<<20 {
			h.t.Fatalf("%d bytes, %v: nobody reads", sent, err)
		}
		taken = false
		for end := time.Now().Add(300 * time.Millisecond); !taken && time.Now().Before(end); {
			taken = h.stats(l).Received == uint64(sent)
		}
	}
}

// Nor if there is something for it that it did not read.
func TestForwardResetBothHeldUp(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		s := backend(t, "tcp", "127.0.0.1:0")
		l := h.open(spec(t, forwardTo(s.Addr()), "", "tcp://127.0.0.1:0"))
		client := dial(t, h.addr(l, 0))
		up := s.next(t)
		h.holdUp(l, client)
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			send(up, 1, 256<<20)
		}()
		for before := uint64(1); before != h.stats(l).Sent; h.until(300 * time.Millisecond) {
			before = h.stats(l).Sent
		}
		resetting(client)
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "the relay stays" })
		<-wrote
	})
}

// RST is carried over too when it is a write that is told of it.
func TestForwardResetWhileSending(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		s := backend(t, "tcp", "127.0.0.1:0")
		l := h.open(spec(t, forwardTo(s.Addr()), "", "tcp://127.0.0.1:0"))
		for i := range 40 {
			client := dial(t, h.addr(l, 0))
			up := s.next(t)
			resets, sends := client, up
			if i%2 == 1 {
				resets, sends = up, client
			}
			first := make(chan struct{})
			go func() {
				io.ReadFull(resets, make([]byte, 40))
				resetting(resets)
				close(first)
			}()
			var err error
			for err == nil {
				h.until(time.Millisecond / 2)
				_, err = sends.Write([]byte("more"))
			}
			if <-first; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%d: %v", i, err)
			}
			sends.Close()
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
	})
}

// A client that has said all and is gone has said it, however slowly the
// upstream reads.
func TestForwardLeavesWhileHeldUp(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		s := backend(t, "unix", dir+"/up")
		l := h.open(spec(t, forwardTo(s.Addr()), "", "unix://"+dir+"/in"))
		client := dial(t, h.addr(l, 0))
		up := s.next(t)
		sent := make(chan [32]byte, 1)
		go func() {
			sum, err := send(client, 1, 1<<20) // more than the kernel keeps for one side
			if err != nil {
				t.Error(err)
			}
			client.Close()
			sent <- sum
		}()
		first := make([]byte, 1)
		if _, err := io.ReadFull(up, first); err != nil {
			t.Fatal(err)
		}
		h.until(50 * time.Millisecond)
		rest, err := io.ReadAll(up)
		if sum := sha256.Sum256(append(first, rest...)); err != nil || sum != <-sent {
			t.Errorf("%d bytes, %v", 1+len(rest), err)
		}
		up.Close()
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "the relay stays" })
	})
}
