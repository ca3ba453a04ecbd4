//go:build linux

package deploy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fromEnv is a number that turns a short test into a long one.
func fromEnv(t *testing.T, name string, short int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, text, err)
	}
	return n
}

// encounters counts what clients met.
type encounters struct {
	connects, echoed, lost atomic.Int64

	mu     sync.Mutex
	failed map[string]int
}

func (c *encounters) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed[err.Error()]++
}

// client connects again and again, and has each connection echo a byte. One that
// the kernel has not made is a failure, as is one that nobody answers; one that
// ends before the echo was accepted by a daemon that was killed then.
func (c *encounters) client(ctx context.Context, address string) {
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		<-pace.C
		c.connects.Add(1)
		conn, err := dial(address)
		if err != nil {
			c.fail(err)
			continue
		}
		var timeout net.Error
		switch err := echo(conn, patience); {
		case err == nil:
			c.echoed.Add(1)
		case errors.As(err, &timeout) && timeout.Timeout():
			c.fail(err)
		default:
			c.lost.Add(1)
		}
		_ = conn.Close()
	}
}

func echo(conn net.Conn, patience time.Duration) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// meanwhile has something happen, again and again, while clients connect, and one
// more waits in the queue of a paused listener. None may be refused.
func (s *installed) meanwhile(ctx context.Context, t *testing.T, what string, times int, do func()) {
	t.Helper()
	met := encounters{failed: map[string]int{}}
	busy, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for range 4 {
		clients.Go(func() {
			if err := s.inNetwork(func() error { met.client(busy, "127.0.0.1:80"); return nil }); err != nil {
				met.fail(err)
			}
		})
	}
	waits := make(chan error, 1)
	clients.Go(func() { waits <- s.inNetwork(func() error { return served("127.0.0.1:81", limit) }) })
	s.until(ctx, t, "one waits in the queue", func() bool { return s.queued(t, 81) > 0 })
	var gaps []time.Duration
	for range times {
		had := s.daemon()
		began := time.Now()
		do()
		err := s.inNetwork(func() error { return served("127.0.0.1:80", patience) })
		if err != nil {
			t.Fatalf("after a %s: %v", what, err)
		}
		gaps = append(gaps, time.Since(began))
		s.until(ctx, t, "another daemon is there", func() bool { now := s.daemon(); return now != 0 && now != had })
		enough := met.echoed.Load() + 40
		s.until(ctx, t, "clients are served", func() bool { return met.echoed.Load() >= enough })
	}
	stop()
	s.sockctl(ctx, t, "resume", "held") // a daemon that was told to end has answered already
	if err := <-waits; err != nil {
		t.Errorf("%s: a connection that waited in the queue: %v", what, err)
	}
	clients.Wait()
	s.sockctl(ctx, t, "pause", "held")
	slices.Sort(gaps)
	t.Logf("%d x %s: %d connects, %d echoed, %d failed, %d accepted and then lost; from it to an answer p50 %v max %v",
		times, what, met.connects.Load(), met.echoed.Load(), len(met.failed), met.lost.Load(), gaps[len(gaps)/2], gaps[len(gaps)-1])
	if len(met.failed) > 0 {
		t.Errorf("%s: clients failed: %v", what, met.failed)
	}
	if lost := met.lost.Load(); lost > int64(4*times) { // of each client one, each time
		t.Errorf("%s: %d connections were lost", what, lost)
	}
}

// served connects until a connection is answered: the daemon before had accepted
// the others.
func served(address string, patience time.Duration) error {
	for {
		conn, err := dial(address)
		if err != nil {
			return err
		}
		err = echo(conn, patience)
		_ = conn.Close()
		var timeout net.Error
		if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			return err
		}
	}
}
