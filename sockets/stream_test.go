package sockets

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// A slowClient takes nothing until it is let go on.
type slowClient struct {
	started, goOn chan struct{}
	out           chan []byte
	got           []byte
}

func newSlowClient() *slowClient {
	return &slowClient{started: make(chan struct{}, 100), goOn: make(chan struct{}), out: make(chan []byte)}
}

func (c *slowClient) Send(p []byte) error {
	c.started <- struct{}{}
	<-c.goOn
	c.got = append(c.got, p...)
	return nil
}

func (c *slowClient) Recv() ([]byte, bool, error) {
	p, ok := <-c.out
	if !ok {
		return nil, false, io.EOF
	}
	return p, false, nil
}

// What had come before the peer reset the connection is passed on, though sending
// fails before the client has taken it.
func TestStreamDrains(t *testing.T) {
	b := newBench(t, "epoll", 0)
	x, y := b.pair()
	send := func(id, text string) {
		t.Helper()
		if _, err := b.Send(b.ctx, me, id, []byte(text), true); err != nil {
			t.Fatal(err)
		}
	}
	c := newSlowClient()
	ended := make(chan error, 1)
	go func() { ended <- b.Stream(b.ctx, me, x, c) }()
	send(y, "first ")
	<-c.started
	send(y, "second")
	send(x, "is not read, so that close resets")
	if err := b.CloseSocket(b.ctx, me, y); err != nil {
		t.Fatal(err)
	}
	c.out <- []byte("fails")
	soon := time.NewTimer(50 * time.Millisecond)
	defer soon.Stop()
	select {
	case err := <-ended:
		t.Fatalf("%v, before what came was passed on", err)
	case <-soon.C:
	}
	close(c.goOn)
	if err := <-ended; !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
	if string(c.got) != "first second" {
		t.Errorf("%q", c.got)
	}
	close(c.out)
}

// A socket that a stream has is in use, though the client takes nothing.
func TestStreamIsUse(t *testing.T) {
	b := newBench(t, "epoll", 0)
	x, y := b.pair()
	const idle = 20 * time.Millisecond
	b.loopDo(func() {
		s := b.lookup(x)
		s.idle = idle
		s.idled()
	})
	c := newSlowClient()
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Stream(ctx, me, x, c) }()
	if _, err := b.Send(b.ctx, me, y, []byte("text"), true); err != nil {
		t.Fatal(err)
	}
	<-c.started
	later := time.NewTimer(5 * idle)
	defer later.Stop()
	select {
	case <-ended:
	case <-later.C:
	}
	if _, err := b.Get(b.ctx, x, false); err != nil {
		t.Error(err)
	}
	cancel()
	close(c.out)
	close(c.goOn)
	<-ended
	eventually(t, func() bool { return second(b.Get(b.ctx, x, false)) != nil })
}

// Datagrams are whole unless the caller wants less, however many are taken at
// once.
func TestDatagramsAreWhole(t *testing.T) {
	b := newBench(t, "epoll", 0)
	x, y := b.id(me, listeners.Unixgram), b.id(me, listeners.Unixgram)
	path := "unixgram://" + t.TempDir() + "/s"
	if _, err := b.Bind(b.ctx, me, x, path); err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("x"), 100_000)
	if _, err := b.SendTo(b.ctx, me, y, long, path); err != nil {
		t.Fatal(err)
	}
	got, err := b.RecvFrom(b.ctx, me, x, 10, 0)
	if err != nil || len(got) != 1 || !bytes.Equal(got[0].Payload, long) || got[0].Truncated {
		t.Errorf("%d datagrams, %v", len(got), err)
	}
}
