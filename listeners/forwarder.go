package listeners

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A forwarder is the Handler of Forward. Loop only.
type forwarder struct {
	spec  *Forward
	l     *Listener        // nil: not attached
	pools []*pool          // of the default upstreams, then of each route
	names map[string]*pool // of routes
	timer mux.Timer        // of resolving and checks
	held  []*relay         // wait for an upstream, in order; nil: one that has gone
	gaps  int              // of those that have gone, at most
	probe *mux.Timer       // nil: nobody that is held tries by itself

	sessions map[source]*session // of datagrams
	burst    burst
}

func newForwarder(spec *Forward) *forwarder {
	f := &forwarder{spec: spec, sessions: map[source]*session{}}
	f.pools, f.names = newPools(spec)
	return f
}

// Attach is Attacher.Attach. What is known of an upstream that was there before
// stays known.
func (f *forwarder) Attach(l *Listener, before Handler) {
	f.l = l
	if old, ok := before.(*forwarder); ok {
		f.inherit(old)
		for _, r := range old.held {
			f.hold(r)
		}
		old.held = nil
		for _, ses := range old.sessions {
			ses.f = f
		}
		f.sessions, old.sessions = old.sessions, nil
	}
	f.Expired()
	f.unhold()
}

// Detach is Attacher.Detach.
func (f *forwarder) Detach() {
	f.l.set.loop.Disarm(&f.timer)
	if f.probe != nil {
		f.l.set.loop.Disarm(f.probe)
		f.probe = nil
	}
	f.endSessions(nil)
	for _, u := range f.upstreams() {
		if u.owner == f {
			u.owner = nil
			u.cancelCheck(f.l.set)
		}
	}
}

// Expired does what is due, and comes again when the next thing is.
func (f *forwarder) Expired() {
	now := f.l.set.loop.Clock()
	next := now + resolveInterval
	for _, u := range f.upstreams() {
		u.owner = f
		if u.host != "" {
			if now >= u.resolveAt {
				u.resolveAt = now + resolveInterval
				f.resolve(u)
			}
			next = min(next, u.resolveAt)
		}
		if h := f.spec.Health; h != nil {
			if now >= u.checkAt {
				u.checkAt = now + orDefault(h.Interval, defaultInterval)
				f.check(u, h)
			}
			next = min(next, u.checkAt)
		}
	}
	f.l.set.loop.Arm(&f.timer, next, f)
}

// Open begins to relay a connection, or to wait for what says where to.
func (f *forwarder) Open(p Peer) (Handler, error) {
	c := p.(*conn)
	if len(f.names) > 0 {
		return f.greet(c), nil
	}
	return f.relay(c, "", nil), nil
}

// relay begins to relay a connection that asks for a server, and has sent
// something already.
func (f *forwarder) relay(c *conn, server string, sent []byte) *relay {
	r := &relay{f: f, c: c, fd: -1, server: server}
	r.there.rest = sent
	c.flags |= served
	c.handler = r
	c.rest() // until the upstream is there, what the client says waits in the kernel
	r.begin()
	return r
}

// dialTo begins to connect to an upstream.
func (s *Set) dialTo(a Address) (fd int, connected bool, err error) {
	if err := s.MayConnect(a); err != nil {
		return -1, false, err
	}
	sa, family, err := a.sockaddr()
	if err != nil {
		return -1, false, err
	}
	fd, err = unix.Socket(family, a.Network.kind().sock|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, false, err
	}
	if a.Network.Class() == OnTCP {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // what is relayed has waited enough
	}
	if family == unix.AF_UNIX {
		_ = unix.Bind(fd, &unix.SockaddrUnix{}) // an abstract name, by which a loop is seen: see follow
	}
	switch err = unix.Connect(fd, sa); {
	case err == nil:
		return fd, true, nil
	case errors.Is(err, unix.EINPROGRESS):
		return fd, false, nil
	default:
		sysClose(fd)
		return -1, false, err
	}
}

// sockError takes the error that waits at a socket, 0 for none.
func sockError(fd int) unix.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return unix.EBADF
	}
	return unix.Errno(n)
}

// sourceOf is what source_hash goes by.
func sourceOf(c *conn) netip.Addr { return c.source().Addr() }

const resolveInterval = 30 * time.Second
