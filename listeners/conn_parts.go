package listeners

import "net/netip"

// What few connections have at any time is behind pointers: a million of them
// that do nothing shall not pay for it.

// queues is what waits for the handler, or for the kernel.
type queues struct {
	in     []byte // offered, and not consumed yet
	more   bool   // of it can be: its turn was over
	out    []byte // not taken by the kernel yet
	shared []byte // to follow out; not ours to change

	tolerated uint64 // while lingering: most of received
}

// rare is what a connection has when an option or a header asks for it.
type rare struct {
	origin *origin // nil: not counted
	pace   *pace   // nil: there is no rate
	link   *link   // nil: no fault has hit it

	durable *durable       // nil: it ends with this process
	proxied netip.AddrPort // who the PROXY header says it is from; zero: there was none

	stalls [directions]*stall // nil: nothing waits to be taken
}

// queue makes the queues.
func (c *conn) queue() *queues {
	if c.queues == nil {
		c.queues = &queues{}
	}
	return c.queues
}

// rarely makes what is rare.
func (c *conn) rarely() *rare {
	if c.rare == nil {
		c.rare = &rare{}
	}
	return c.rare
}

// input is what was offered and not consumed.
func (c *conn) input() []byte {
	if c.queues == nil {
		return nil
	}
	return c.queues.in
}

// keep notes what was not consumed.
func (c *conn) keep(rest []byte) {
	if len(rest) > 0 {
		q := c.queue()
		q.in = append(q.in[:0], rest...)
		return
	}
	if c.queues != nil {
		c.queues.in, c.queues.more = nil, false
		c.shed()
	}
}

// shed lets go of queues in which nothing is: an idle connection holds no buffer.
func (c *conn) shed() {
	if q := c.queues; q != nil && len(q.in) == 0 && !c.Pending() && !c.is(lingering) {
		c.queues = nil
	}
}

// yield notes whether the handler is to go on with the input in the next turn in
// which the kernel takes output. Until then nothing is read, as if some waited.
func (c *conn) yield(more bool) {
	if more {
		c.queue().more = true
	} else if c.queues != nil {
		c.queues.more = false
	}
}

// Pending is Peer.Pending.
func (c *conn) Pending() bool { return c.queues != nil && (c.queues.more || c.pending() > 0) }

// pending is how many bytes the kernel has not taken.
func (c *conn) pending() int {
	if c.queues == nil {
		return 0
	}
	return len(c.queues.out) + len(c.queues.shared)
}

// cookie is the socket's, while it is open: see cookieOf.
func (c *conn) cookie() uint64 { return cookieOf(int(c.fd)) }
