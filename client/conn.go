package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/internal/deadline"
)

const (
	chunk    = 64 << 10        // of one message
	sendTime = time.Minute     // that a closed connection may take to send what was written
	waitTime = 2 * time.Second // for its peer to end, then
)

// A conn is one socket, over a stream. Two goroutines have the stream, since
// its calls cannot be given up; they pass on one message at a time, and so hold
// up the daemon, and the peer, when the user does not keep up.
type conn struct {
	c             *Client
	name          string
	local, remote net.Addr
	stream        grpc.BidiStreamingClient[pb.StreamRequest, pb.StreamResponse]
	cancel        context.CancelFunc

	deadline.Pair
	readers, writers sync.Mutex // one call at a time
	rest             []byte     // of a message; the reader's
	in, out          chan []byte

	ended    chan struct{} // the peer has finished, or the stream has failed: readErr is there
	readErr  error
	over     chan struct{} // the stream has ended: err is there
	err      error         // nil: in peace
	shut     chan struct{} // nothing more shall be sent
	sent     chan struct{} // nothing more is being sent
	closed   chan struct{}
	shutOnce sync.Once
	once     sync.Once
}

// stream takes a connected socket over.
func (c *Client) stream(s *pb.Socket) (net.Conn, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := c.sockets.Stream(ctx)
	if err == nil {
		err = stream.Send(&pb.StreamRequest{Name: s.GetName()})
	}
	if err != nil {
		cancel()
		c.closeSocket(s.GetName())
		return nil, err
	}
	conn := &conn{
		c: c, name: s.GetName(), local: netAddr(s.GetLocal()), remote: netAddr(s.GetRemote()), stream: stream, cancel: cancel,
		in: make(chan []byte), out: make(chan []byte), ended: make(chan struct{}), over: make(chan struct{}),
		shut: make(chan struct{}), sent: make(chan struct{}), closed: make(chan struct{}),
	}
	conn.State = conn.state
	c.open.Add(1)
	go conn.receive()
	go conn.send()
	return conn, nil
}

// receive passes on what comes.
func (c *conn) receive() {
	defer close(c.over)
	finished := false
	end := func(err error) {
		if !finished {
			finished = true
			c.readErr = err
			close(c.ended)
		}
	}
	for {
		m, err := c.stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.err = cause(err)
			}
			if c.err == nil {
				end(io.EOF)
			}
			end(c.err)
			return
		}
		if p := m.GetPayload(); len(p) > 0 {
			select {
			case c.in <- p:
			case <-c.closed: // nobody reads any more
			}
		}
		if m.GetHalfClose() {
			end(io.EOF)
		}
	}
}

// send passes on what is written.
func (c *conn) send() {
	defer close(c.sent)
	for {
		select {
		case p := <-c.out:
			if c.stream.Send(&pb.StreamRequest{Payload: p}) != nil {
				return // receive has the reason
			}
		case <-c.shut:
			_ = c.stream.Send(&pb.StreamRequest{HalfClose: true}) // as above
			_ = c.stream.CloseSend()
			return
		case <-c.over:
			return
		}
	}
}

// Read is net.Conn.Read.
func (c *conn) Read(p []byte) (int, error) {
	c.readers.Lock()
	defer c.readers.Unlock()
	late := c.ReadBy.Passed()
	switch {
	case deadline.IsClosed(c.closed):
		return 0, c.failed("read", net.ErrClosed)
	case deadline.IsClosed(late):
		return 0, c.failed("read", os.ErrDeadlineExceeded)
	case len(p) == 0:
		return 0, nil
	}
	if len(c.rest) == 0 {
		select {
		case c.rest = <-c.in:
		case <-c.ended:
			if c.readErr == io.EOF { //nolint:errorlint // io.Reader returns it bare
				return 0, io.EOF
			}
			return 0, c.failed("read", c.readErr)
		case <-c.closed:
			return 0, c.failed("read", net.ErrClosed)
		case <-late:
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write is net.Conn.Write. What it has taken is on its way, as with a socket
// whose buffer holds 64 KiB.
func (c *conn) Write(p []byte) (n int, err error) {
	c.writers.Lock()
	defer c.writers.Unlock()
	late := c.WriteBy.Passed()
	switch {
	case deadline.IsClosed(c.closed) || deadline.IsClosed(c.shut):
		return 0, c.failed("write", net.ErrClosed)
	case deadline.IsClosed(late):
		return 0, c.failed("write", os.ErrDeadlineExceeded)
	}
	for n < len(p) {
		piece := append([]byte(nil), p[n:min(n+chunk, len(p))]...) // it is sent later, and p is the caller's
		select {
		case c.out <- piece:
			n += len(piece)
		case <-c.sent:
			<-c.over
			if c.err == nil {
				return n, c.failed("write", net.ErrClosed)
			}
			return n, c.failed("write", c.err)
		case <-c.closed:
			return n, c.failed("write", net.ErrClosed)
		case <-late:
			return n, c.failed("write", os.ErrDeadlineExceeded)
		}
	}
	return n, nil
}

func (c *conn) failed(op string, err error) error { return opError(op, c.local, c.remote, err) }

// CloseWrite tells the peer that no more comes, after all that was written.
func (c *conn) CloseWrite() error {
	if deadline.IsClosed(c.closed) {
		return c.failed("close", net.ErrClosed)
	}
	c.shutOnce.Do(func() { close(c.shut) })
	return nil
}

// Close is net.Conn.Close. What was written is sent still.
func (c *conn) Close() error {
	err := c.failed("close", net.ErrClosed)
	c.once.Do(func() {
		err = nil
		close(c.closed)
		c.shutOnce.Do(func() { close(c.shut) })
		go c.leave()
	})
	return err
}

// leave closes the socket once all is sent.
func (c *conn) leave() {
	defer c.c.open.Done()
	within(c.sent, sendTime)
	within(c.over, waitTime)
	c.cancel()
	<-c.over
	c.c.closeSocket(c.name)
}

// within waits for ch, and no longer than d.
func within(ch <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
	}
}

// LocalAddr is the address in the daemon.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// state is why nothing more can be done.
func (c *conn) state() error {
	if deadline.IsClosed(c.closed) {
		return c.failed("set", net.ErrClosed)
	}
	return nil
}
