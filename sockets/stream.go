package sockets

import (
	"context"
	"errors"
	"io"
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

// Stream carries the bytes of one socket both ways until both have ended, or
// one fails. Bytes are taken from the kernel when the client has taken those
// before, and from the client when the kernel has.
func (t *Table) Stream(ctx context.Context, who Caller, id string, c Client) error {
	who.Watch = nil // what was passed on may have been used, though the stream is given up
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ends := make(chan error, 2)
	go func() { ends <- t.fromClient(ctx, who, id, c) }()
	go func() { ends <- t.toClient(ctx, who, id, c) }()
	for range 2 {
		if err := <-ends; err != nil {
			cancel(err)
			return err
		}
	}
	return nil
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
