package sockets

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// streamChunk is how many bytes of each direction are in user space at most,
// beside what gRPC has on its way. Each costs a way to the loop and back: with a
// quarter of it a stream is half as fast.
const streamChunk = 256 << 10

// A Client is the other end of Stream. Send and Recv are each called by one
// goroutine, and may wait as long as the client does.
type Client interface {
	// Send passes on what was received; nothing is the end of it.
	Send(p []byte) error
	// Recv returns what to send, and whether that is the last. io.EOF means
	// that no more comes, which says nothing to the peer.
	Recv() (p []byte, last bool, err error)
}

// drainTime is how long a client may take for what had come when its peer was
// gone already.
const drainTime = 5 * time.Second

// Stream carries the bytes of one socket both ways until both have ended, or
// one fails. Bytes are taken from the kernel when the client has taken those
// before, and from the client when the kernel has. When nothing can be sent any
// more, what the kernel has received is passed on first.
func (t *Table) Stream(ctx context.Context, who Caller, id string, c Client) error {
	who.Watch = nil // what was passed on may have been used, though the stream is given up
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	used, err := t.use(ctx, who, id)
	if err != nil {
		return err
	}
	defer used()
	receiving, stop := context.WithCancel(ctx)
	defer stop()
	sent, received := make(chan error, 1), make(chan error, 1)
	go func() { sent <- t.fromClient(ctx, who, id, c) }()
	go func() { received <- t.toClient(receiving, who, id, c) }()
	select {
	case err = <-received:
		if err == nil {
			err = <-sent
		}
		return err
	case err = <-sent:
	}
	if err == nil {
		return <-received
	}
	if _, ok := errors.AsType[unix.Errno](err); !ok {
		return err // it is the client that has failed
	}
	stop()
	go func() {
		if errors.Is(<-received, context.Canceled) {
			t.drain(ctx, who, id, c)
		}
		cancel()
	}()
	wait, enough := context.WithTimeout(ctx, drainTime)
	defer enough()
	<-wait.Done()
	return err
}

// use keeps a socket from being idle as long as a stream has it, though no call
// may be waiting: the client does not read, or the peer has finished.
func (t *Table) use(ctx context.Context, who Caller, id string) (end func(), err error) {
	var s *Socket
	err = t.with(ctx, who, id, func(found *Socket) error {
		s = found
		s.streams++
		return nil
	})
	return func() {
		_ = t.loop.Post(func() { // fails when the loop has ended
			s.streams--
			s.active = t.loop.Clock()
		})
	}, err
}

// drain passes on what the kernel has.
func (t *Table) drain(ctx context.Context, who Caller, id string, c Client) {
	for {
		var got taken[Datagram]
		err := t.with(ctx, who, id, func(s *Socket) (err error) {
			got, err = s.next(streamChunk, false)
			return err
		})
		if err != nil || c.Send(got.what.Payload) != nil || len(got.what.Payload) == 0 {
			return
		}
	}
}

// fromClient ends at the latest when the call of Stream that it is of has.
func (t *Table) fromClient(ctx context.Context, who Caller, id string, c Client) error {
	for {
		p, last, err := c.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && len(p) > 0 {
			_, err = t.send(ctx, who, id, p, true, true)
		}
		if err != nil {
			return err
		}
		if last {
			return t.Shutdown(ctx, who, id, false, true)
		}
	}
}

func (t *Table) toClient(ctx context.Context, who Caller, id string, c Client) error {
	for {
		got, err := t.recv(ctx, who, id, streamChunk, false, true)
		if err != nil {
			return err
		}
		if err := c.Send(got.what.Payload); err != nil {
			_ = t.with(context.WithoutCancel(ctx), who, id, func(s *Socket) error { // fails when it is closed
				s.giveBack(got)
				return nil
			})
			return err
		}
		if len(got.what.Payload) == 0 {
			return nil
		}
	}
}
