package listeners

import (
	"errors"

	"golang.org/x/sys/unix"
)

// sendOut gives an accepted connection to the loop that has least to do; false
// means that this one serves it.
func (l *Listener) sendOut(a admission) bool {
	if l.state != Running && l.state != Limited { // what ends is ended in one place
		return false
	}
	w := l.set.idlest()
	if w == nil {
		return false
	}
	sh := l.shard(w)
	if l.tunables.MaxPerSource > 0 && a.family != unix.AF_UNIX {
		a.origin = l.countOrigin(a.remote.Addr())
	}
	a.socket = nil
	w.flight.Add(1)
	if w.set.loop.Post(func() { w.flight.Add(-1); sh.take(a) }) != nil {
		w.flight.Add(-1)
		if a.origin != nil {
			l.leaveOrigin(a.origin)
		}
		return false
	}
	w.conns++
	l.handed++
	l.countIn()
	return true
}

// A departure is that a connection of a shard is closed, or was never made, as the
// first loop has to know it.
type departure struct {
	origin *origin // that has counted it in
	cut    bool    // by the end of a drain
	relay  *relay  // whose upstream is in the books still
}

// depart tells the first loop that the connection is about to be closed because of
// why.
func (c *conn) depart(why error) {
	d := departure{cut: errors.Is(why, errDrained), relay: c.relay()}
	if c.rare != nil {
		d.origin, c.rare.origin = c.rare.origin, nil
	}
	c.l.tellDeparture(d)
}

func (l *Listener) tellDeparture(d departure) {
	whole, number := l.whole, l.set.number
	_ = whole.set.loop.Post(func() { whole.departed(number, d) }) // ended: there are no books any more
}

// departed counts out a connection that another loop has closed.
func (l *Listener) departed(number int, d departure) {
	l.set.workers[number-1].conns--
	l.set.open--
	l.active--
	if d.cut {
		l.drain.cut++
	}
	if d.origin != nil {
		l.leaveOrigin(d.origin)
	}
	if d.relay != nil {
		d.relay.checkOut(l.set)
	}
	l.set.released()
	l.unlimit()
	l.ended()
}

// isPortable reports whether the connection can go to another loop as it is: all
// that serves it is its own.
func (c *conn) isPortable() bool {
	if k := c.rare; k != nil && (k.link != nil || k.durable != nil) {
		return false
	}
	h := c.handler
	if p, ok := h.(*preface); ok {
		h = p.next
	}
	switch h := h.(type) {
	case Echo, Discard, repliedTo, Chargen, *generator, Daytime, Time, *Reply, *httpHandler, *httpConn:
		return true
	case *relay:
		return h.isOpen && h.taker == nil
	default:
		return false
	}
}

// leave gives the connection to the loop that has least to do; false means that it
// stays. Nobody may be using it just now.
func (c *conn) leave() bool {
	l := c.l
	if l.whole != nil || l.spreads == atHome || l.state != Running && l.state != Limited || !c.isPortable() {
		return false
	}
	w := l.set.idlest()
	if w == nil {
		return false
	}
	sh := l.shard(w)
	c.uproot()
	w.conns++
	w.flight.Add(1)
	if w.set.loop.Post(func() { w.flight.Add(-1); c.settleOn(sh) }) != nil { // that loop has ended, and so will this one
		w.flight.Add(-1)
		w.conns--
		c.settleOn(l)
		return true
	}
	l.handed++
	return true
}

// goHome gives the connection back to the first loop.
func (c *conn) goHome() {
	whole, number := c.l.whole, c.l.set.number
	c.uproot()
	_ = whole.set.loop.Post(func() { // ended: the process does too
		whole.set.workers[number-1].conns--
		c.settleOn(whole)
		if c.fd >= 0 {
			c.comeUnder(whole)
		}
	})
}

// uproot takes the connection, and what belongs to it, off its loop.
func (c *conn) uproot() {
	loop := c.l.set.loop
	_ = loop.Remove(int(c.fd)) // it is there
	loop.Disarm(&c.timer)
	c.forgetOutput() // settleOn notes it again
	if c.l.set.slow.narrow {
		c.narrow(false)
	}
	if c.isPaced() {
		p := c.rare.pace
		c.want |= p.held
		p.drop()
	}
	r := c.relay()
	if r == nil {
		return
	}
	_ = loop.Remove(int(r.fd)) // it is there
	c.want, r.want = 0, 0      // what to wait for is found out anew
	for _, f := range []*flow{&r.there, &r.back} {
		if f.pipe != nil {
			f.pipe.set.used -= 2
			f.pipe.set = nil
		}
	}
}

// settleOn puts it on the loop of another part of its listener, and goes on.
func (c *conn) settleOn(l *Listener) {
	c.l = l
	r := c.relay()
	if r != nil {
		for _, f := range []*flow{&r.there, &r.back} {
			if f.pipe != nil {
				f.pipe.set = l.set
				l.set.used += 2
			}
		}
	}
	err := l.set.loop.Add(int(c.fd), c.want, c)
	if err == nil && r != nil {
		err = l.set.loop.Add(int(r.fd), 0, r)
	}
	if err != nil {
		c.close(err)
		return
	}
	if l.set.slow.narrow {
		c.setWidth()
	}
	if r == nil && c.wantsToWrite() { // a relay does so itself
		c.noteOutput()
	}
	switch h := c.handler.(type) {
	case *httpConn:
		h.h = l.httpHandler(h.h)
	case *preface:
		if own, ok := h.next.(*httpHandler); ok {
			h.next = l.httpHandler(own)
		}
	}
	switch {
	case c.isPaced() != (l.paced != rates{}):
		c.repace()
	case c.isPaced() && c.want != 0:
		c.resume()
	}
	if c.fd >= 0 && r != nil {
		r.goOn()
	}
	if c.fd >= 0 {
		c.arm()
	}
}

// httpHandler is what does on this loop what h does on another: it has a buffer and
// the time of day, which are the loop's.
func (l *Listener) httpHandler(h *httpHandler) *httpHandler {
	if own, ok := l.handler.(*httpHandler); ok && own.spec == h.spec {
		return own
	}
	if l.former == nil || l.former.spec != h.spec { // the listener has another by now, or a shard none yet
		l.former = h.spec.New().(*httpHandler)
	}
	return l.former
}

// comeUnder has a connection that came home follow what its listener has begun
// while it was away.
func (c *conn) comeUnder(l *Listener) {
	if c.rare != nil {
		c.leaveOrigin()
	}
	if l.tunables.MaxPerSource > 0 {
		c.joinOrigin()
	}
	if l.faults != (Faults{}) {
		c.refault()
	}
	if c.fd < 0 || l.state != Draining || l.drain.lame {
		return
	}
	if !l.set.loop.Now().Before(l.drain.until) {
		c.drained()
		return
	}
	c.drain()
}
