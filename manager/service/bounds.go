package service

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/sockmgr/sockmgr/listeners"
)

// What one connection and one identity may take. The limit of streams that gRPC
// knows is one for all methods, and a Go client of ours has a stream open for
// every net.Conn: so that one is wide, and calls of other services have a
// narrower one here. A limit of streams saves memory, not processor: who makes
// streams and resets them is held by the rate.
const (
	maxConnections = 128 // of one identity
	maxHandshakes  = 256 // at a time, of all
	maxCalls       = 64  // at a time, of one connection, but for SocketService
	callRate       = 5000
	socketRate     = 50000
	blockedTime    = 30 * time.Second // a client that takes nothing of what it watches
)

const socketMethods = "/sockmgr.v1.SocketService/"

// A conns counts control connections.
type conns struct {
	handshakes chan struct{} // one for each that runs

	mu sync.Mutex
	by map[string]int // open ones, by identity
}

func newConns() *conns {
	return &conns{handshakes: make(chan struct{}, maxHandshakes), by: map[string]int{}}
}

// begin takes a place for a handshake.
func (c *conns) begin() (end func(), err error) {
	select {
	case c.handshakes <- struct{}{}:
		return func() { <-c.handshakes }, nil
	default:
		return nil, fmt.Errorf("%d handshakes run already", maxHandshakes)
	}
}

// hold counts a connection until it is closed.
func (c *conns) hold(conn net.Conn, who string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[who] >= maxConnections {
		return nil, fmt.Errorf("%s has %d control connections open, the most there may be", who, maxConnections)
	}
	c.by[who]++
	return &heldConn{Conn: conn, end: sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.by[who]--; c.by[who] == 0 {
			delete(c.by, who)
		}
	})}, nil
}

// heldConn is one that is counted.
type heldConn struct {
	net.Conn
	end func()
}

// Close closes it.
func (c *heldConn) Close() error {
	defer c.end()
	return c.Conn.Close()
}

// A usage is what one connection takes.
type usage struct {
	calls atomic.Int32 // that run

	mu            sync.Mutex
	call, sockets rate
}

// rate is a bucket that has a second's worth.
type rate struct {
	left float64
	at   time.Time
}

func (r *rate) take(now time.Time, perSecond float64) bool {
	if r.at.IsZero() {
		r.left = perSecond
	} else {
		r.left = min(perSecond, r.left+perSecond*now.Sub(r.at).Seconds())
	}
	if r.at = now; r.left < 1 {
		return false
	}
	r.left--
	return true
}

// slowDown refuses streams that come too fast, before they cost anything. It
// runs where frames are read, and must not wait.
func slowDown(ctx context.Context, info *tap.Info) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil // the guard refuses it
	}
	c, ok := p.AuthInfo.(caller)
	if !ok || c.used == nil {
		return ctx, nil
	}
	c.used.mu.Lock()
	defer c.used.mu.Unlock()
	r, most := &c.used.call, float64(callRate)
	if strings.HasPrefix(info.FullMethodName, socketMethods) {
		r, most = &c.used.sockets, socketRate
	}
	if !r.take(time.Now(), most) {
		return ctx, status.Errorf(codes.ResourceExhausted, "more than %.0f calls in a second on one connection", most)
	}
	return ctx, nil
}

// hold counts a call until it has ended.
func (c caller) hold(method string) (end func(), err error) {
	if c.used == nil || strings.HasPrefix(method, socketMethods) {
		return func() {}, nil
	}
	if c.used.calls.Add(1) > maxCalls {
		c.used.calls.Add(-1)
		return nil, &listeners.Fault{
			Reason: listeners.LimitReached, Message: fmt.Sprintf("%d calls run on this connection, the most there may be at a time", maxCalls),
			Fix: "wait until one has ended",
		}
	}
	return func() { c.used.calls.Add(-1) }, nil
}

// watched runs a call that sends, and gives it up when the client has taken
// nothing for long: Send waits for the client for ever. What is given up ends
// when gRPC ends the stream.
func watched(s *checkedStream, run func(grpc.ServerStream) error) error {
	w := &watchedStream{checkedStream: s}
	w.blocked = make(chan struct{})
	w.timer = time.AfterFunc(time.Hour, func() { close(w.blocked) })
	w.timer.Stop()
	done := make(chan error, 1)
	go func() { done <- run(w) }()
	select {
	case err := <-done:
		return err
	case <-w.blocked:
		return &listeners.Fault{Reason: listeners.LimitReached, Message: fmt.Sprintf("the client has read nothing for %v", s.guard.patience()), Fix: "read what is watched, and go on from the last resume token"}
	}
}

// watchedStream times what is sent.
type watchedStream struct {
	*checkedStream
	timer   *time.Timer // runs while Send does
	blocked chan struct{}
}

// SendMsg sends one message. The timer fires once at most: then the stream ends.
func (s *watchedStream) SendMsg(m any) error {
	select {
	case <-s.blocked:
		return context.Canceled
	default:
	}
	s.timer.Reset(s.guard.patience())
	defer s.timer.Stop()
	return s.ServerStream.SendMsg(m)
}

// patience is how long a client may take nothing.
func (g *guard) patience() time.Duration {
	if g.blocked != 0 {
		return g.blocked
	}
	return blockedTime
}
