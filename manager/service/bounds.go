package service

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager/access"
)

// What one connection and one identity may take. The limit of streams that gRPC
// knows is one for all methods, and a Go client of ours has a stream open for
// every net.Conn: so that one is wide, and calls of other services have a
// narrower one here. A limit of streams saves memory, not processor: for that
// there is pace.
const (
	maxConnections = 128              // of one identity
	maxHandshakes  = 256              // at a time, of all
	maxCalls       = 64               // at a time, of one connection, but for SocketService
	blockedTime    = 30 * time.Second // a client that takes nothing of what it watches
)

const socketMethods = "/sockmgr.v1.SocketService/"

// A conns counts control connections.
type conns struct {
	handshakes chan struct{} // one for each that runs

	mu        sync.Mutex
	by        map[string]int // open ones, by identity
	processes map[string]*process
}

func newConns() *conns {
	return &conns{handshakes: make(chan struct{}, maxHandshakes), by: map[string]int{}, processes: map[string]*process{}}
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
func (c *conns) hold(conn net.Conn, identity access.Identity) (net.Conn, *process, error) {
	who := identity.String()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[who] >= maxConnections {
		return nil, nil, fmt.Errorf("%s has %d control connections open, the most there may be", who, maxConnections)
	}
	c.by[who]++
	p := c.processOf(fmt.Sprintf("%s %d", who, identity.PID))
	p.conns++
	return &heldConn{Conn: conn, end: sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.by[who]--; c.by[who] == 0 {
			delete(c.by, who)
		}
		p.conns--
	})}, p, nil
}

// processOf finds a process, which is remembered for some time after its last
// connection: who connects again owes what it did.
func (c *conns) processOf(key string) *process {
	p := c.processes[key]
	if p == nil {
		if len(c.processes) >= 2*maxConnections {
			maps.DeleteFunc(c.processes, func(_ string, p *process) bool { return p.conns == 0 && !p.owes() })
		}
		p = newProcess()
		c.processes[key] = p
	}
	return p
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
	pace  *pace
}

// hold counts a call until it has ended.
func (c caller) hold(ctx context.Context, method string) (end func(), err error) {
	used := c.used
	if used == nil || strings.HasPrefix(method, socketMethods) {
		return func() {}, nil
	}
	if used.calls.Add(1) > maxCalls {
		used.calls.Add(-1)
		return nil, &listeners.Fault{
			Reason: listeners.LimitReached, Message: fmt.Sprintf("%d calls run on this connection, the most there may be at a time", maxCalls),
			Fix: "wait until one has ended",
		}
	}
	return func() {
		if used.calls.Add(-1); ctx.Err() != nil && used.pace != nil {
			used.pace.wasted()
		}
	}, nil
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
