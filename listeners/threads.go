package listeners

import (
	"net"

	"github.com/sockmgr/sockmgr/internal/shim"
)

// threads is the Handler of a listener whose connections are served by a
// goroutine each. Datagrams are next's, on the loop. Loop only.
type threads struct {
	spec HandlerSpec
	next Handler // the listener's
}

// A blocker is a Handler that serves a connection by blocking calls, in place
// of being driven. conn is what the peer says, and t the connection itself.
type blocker interface {
	serve(conn net.Conn, t *thread) error
}

// handler returns what serves a listener of this spec.
func (s Spec) handler() Handler {
	_, isProgram := s.Handler.(*Exec)
	concurrency := s.concurrency()
	if concurrency == InProcess && !isProgram {
		return &executor{spec: &Exec{Command: []string{shim.SelfPath}}, serves: s.Handler}
	}
	h := s.Handler.New()
	if concurrency == InThread {
		return &threads{s.Handler, h}
	}
	return h
}

// inner is the Handler that is run, by the loop or by threads.
func inner(h Handler) Handler {
	if s, ok := h.(*threads); ok {
		return s.next
	}
	return h
}

// Handle is for datagrams.
func (s *threads) Handle(from Peer, p []byte) (int, error) { return s.next.Handle(from, p) }

// Open has a goroutine serve a connection. What is driven is made for it alone:
// a Handler knows of one goroutine, the loop's.
func (s *threads) Open(p Peer) (Handler, error) {
	c := p.(*conn)
	if b, ok := s.next.(blocker); ok {
		return c.thread(false, c.l.tls.over(b.serve)), nil
	}
	d := &driver{kind: s.spec, packets: c.is(packets), tunables: &c.l.shown}
	return c.thread(true, c.l.tls.over(d.serve)), nil
}

// Attach is Attacher.Attach.
func (s *threads) Attach(l *Listener, before Handler) {
	if a, ok := s.next.(Attacher); ok {
		a.Attach(l, before)
	}
}

// Detach is Attacher.Detach.
func (s *threads) Detach() {
	if a, ok := s.next.(Attacher); ok {
		a.Detach()
	}
}
