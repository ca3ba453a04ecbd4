package listeners

import (
	"errors"
	"fmt"
)

// A greeting is the Handler of a connection until its ClientHello was read, which
// says which upstreams it is for.
type greeting struct {
	f     *forwarder
	hello hello
}

// greet waits for the ClientHello of a connection.
func (f *forwarder) greet(c *conn) *greeting {
	c.deadline = c.l.set.loop.Clock() + orDefault(f.spec.HelloTimeout, defaultHello)
	return &greeting{f: f}
}

// Handle takes the hello. The upstream gets it as it came.
func (g *greeting) Handle(from Peer, p []byte) (int, error) {
	c := from.(*conn)
	name, whole, err := g.hello.add(p)
	switch {
	case err != nil:
		return 0, c.rejectHello(err)
	case !whole:
		return len(p), nil
	}
	f := g.f
	if now, ok := inner(c.l.handler).(*forwarder); ok {
		f = now // the routes were changed meanwhile
	}
	if len(f.poolFor(name).upstreams) == 0 {
		_, _ = c.Write([]byte(unrecognizedName)) // or it is gone, which the close finds out
		if name == "" {
			return len(p), c.rejectHello(errors.New("it asks for no server, and there is no default upstream"))
		}
		return len(p), c.rejectHello(fmt.Errorf("there is no route for %s", name))
	}
	c.deadline = 0
	f.relay(c, name, g.hello.raw)
	return len(p), nil
}

// Expired is the end of the wait for the hello.
func (g *greeting) Expired(p Peer) error {
	return p.(*conn).rejectHello(errors.New("no ClientHello came in time"))
}

// isBeginning reports whether something comes before what the handler gets.
func (c *conn) isBeginning() bool {
	switch c.handler.(type) {
	case *preface, *greeting:
		return true
	default:
		return false
	}
}

// rejectHello counts a connection that is closed for want of a good hello. The
// first is logged: clients may speak something else than they shall.
func (c *conn) rejectHello(why error) error {
	c.l.stats.reject(RejectedTLS)
	if c.l.stats.RejectedBy[RejectedTLS] == 1 {
		c.l.set.log.Warn("connection closed for want of a ClientHello with a route; further ones are only counted", "listener", c.l.Name, "remote", c.source(), "error", why)
	}
	return fmt.Errorf("%w: %w", errTLS, why)
}
