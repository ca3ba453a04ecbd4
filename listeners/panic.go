package listeners

import (
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// A handler that panics loses its connection, or its datagram. One that does so
// again and again is given a rest, as programs that fail are: see despair.
const (
	panicsMost   = 10
	panicsIn     = time.Minute
	panicsLogged = time.Minute // one in this time, of each listener
)

// A panicked is what a connection is closed with whose handler panicked.
type panicked struct {
	what  any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("the handler panicked: %v", p.what) }

// panics are those of the handler of one listener.
type panics struct {
	total  uint64
	recent []time.Duration // when, on the loop's clock; the last panicsMost
	logged time.Duration   // the last that was
	many   bool            // the listener is about to be given a rest
}

// caught is what f returns, or that it panicked. Every goroutine that runs a
// handler's code begins with it: a panic ends one connection, not the daemon.
func caught(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{p, debug.Stack()}
		}
	}()
	return f()
}

// On the loop only calls of a Handler are guarded, so that a panic of the loop's
// own code ends the process: what it has left behind nobody knows, and the
// supervisor starts another.

func (c *conn) handle(p []byte) (n int, err error) {
	defer c.guard(&err)
	return c.handler.Handle(c, p)
}

func (c *conn) open(o Opener) (h Handler, err error) {
	defer c.guard(&err)
	return o.Open(c)
}

func (c *conn) expire(e Expirer) (err error) {
	defer c.guard(&err)
	return e.Expired(c)
}

func (c *conn) feed(f Feeder) (err error) {
	defer c.guard(&err)
	return f.Feed(c)
}

func (c *conn) comesToRest(d Drainer) (atRest bool) {
	var err error // it is closed, which says all
	defer c.guard(&err)
	return d.Drain(c)
}

func (c *conn) restFor(r Rester, grace time.Duration) {
	var err error
	defer c.guard(&err)
	r.Rest(c, grace)
}

// guard is deferred around a call of the handler: it closes the connection if
// that panicked.
func (c *conn) guard(err *error) {
	if what := recover(); what != nil {
		p := &panicked{what, debug.Stack()}
		*err = p
		c.l.hasPanicked(p)
		c.close(p)
	}
}

// give has the handler look at the datagram in hand.
func (b *batch) give(h Handler) (err error) {
	defer func() {
		if what := recover(); what != nil {
			p := &panicked{what, debug.Stack()}
			err = p
			b.peer.s.l.hasPanicked(p)
		}
	}()
	_, err = h.Handle(&b.peer, b.peer.data)
	return err
}

// hasPanicked counts a panic of the handler, tells of it, and gives the listener
// a rest when there are too many.
func (l *Listener) hasPanicked(p *panicked) {
	if whole := l.whole; whole != nil {
		_ = whole.set.loop.Post(func() { whole.hasPanicked(p) }) // ended: all is closed
		return
	}
	if l.panics == nil {
		l.panics = &panics{logged: -panicsLogged}
	}
	ps, now := l.panics, l.set.loop.Clock()
	ps.total++
	if now-ps.logged >= panicsLogged {
		ps.logged = now
		l.set.log.Error("a handler panicked; its connection is closed", "listener", l.Name, "panic", p.what, "times", ps.total, "stack", string(p.stack))
		l.tellPanic(p, 0)
	}
	if l.failing != "" || ps.many {
		return
	}
	ps.recent = append(ps.recent, now)
	if len(ps.recent) < panicsMost {
		return
	}
	first := ps.recent[0]
	ps.recent = slices.Delete(ps.recent, 0, 1)
	if now-first <= panicsIn {
		ps.recent = nil
		// Not now: the socket may be in the middle of a batch.
		ps.many = l.set.loop.Post(func() { l.giveUp(ps, p) }) == nil // else the loop ends
	}
}

func (l *Listener) tellPanic(p *panicked, pause time.Duration) {
	if l.set.panicked != nil {
		l.set.panicked(l, fmt.Sprint(p.what), l.panics.total, pause)
	}
}

// giveUp is despair because of panics, unless something else has happened since.
func (l *Listener) giveUp(ps *panics, p *panicked) {
	ps.many = false
	if ps != l.panics || l.failing != "" || l.state != Running && l.state != Limited {
		return
	}
	l.set.log.Error("its handler panics again and again: the listener accepts nothing for now", "listener", l.Name, "panic", p.what, "times", l.panics.total, "pause", failingRest)
	l.despair(p.Error())
	l.tellPanic(p, failingRest)
}

// calmDown ends that: another handler has come, or the listener is closed.
func (l *Listener) calmDown() {
	if l.panics != nil {
		l.panics = nil
		l.cheerUp()
	}
}
