package listeners

import (
	"container/list"
	"math"
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

// A direction is that of bytes, as a connection has it.
type direction uint8

const (
	reading direction = iota
	writing
	directions
)

// event is what a connection waits for to move bytes so.
func (d direction) event() mux.Events { return [directions]mux.Events{mux.Readable, mux.Writable}[d] }

// paceSpan is what a bucket holds: so much time's worth goes at once.
const paceSpan = 100 * time.Millisecond

// A rate is bytes in a second; 0 is no limit.
type rate int64

func (r rate) cost(n int64) time.Duration {
	return time.Duration((n*int64(time.Second) + int64(r) - 1) / int64(r))
}

// span is at least one byte's.
func (r rate) span() time.Duration { return max(paceSpan, r.cost(1)) }

// most is how many bytes the full bucket has.
func (r rate) most() int64 { return int64(r.span()) * int64(r) / int64(time.Second) }

// room is how many it has now.
func (r rate) room(b *bucket, now time.Duration) int64 {
	return int64(max(r.span()-max(b.full-now, 0), 0)) * int64(r) / int64(time.Second)
}

// enough is when it has enough to be worth a turn.
func (r rate) enough(b *bucket) time.Duration { return b.when(max(r.span()/2, r.cost(1)), r.span()) }

// rates are those of a listener: of each connection, and of all together.
type rates struct{ each, all [directions]rate }

func (t *Tunables) rates() rates {
	return rates{
		each: [directions]rate{reading: rate(t.ReadRate), writing: rate(t.WriteRate)},
		all:  [directions]rate{reading: rate(t.ListenerReadRate), writing: rate(t.ListenerWriteRate)},
	}
}

// A pace keeps a connection to the rates. It never waits: it takes from the
// loop what may not move now, and puts it back when it may. Loop only.
type pace struct {
	c       *conn
	buckets [directions]bucket
	until   [directions]time.Duration // nothing moves before, lest it be byte by byte
	granted [directions]bool          // its turn at the gate has come
	place   [directions]*list.Element // at the gate; nil: it does not wait there
	held    mux.Events                // what the connection would wait for, and must not
	timer   mux.Timer
}

// each is the rate of the connection: its listener's, or a fault's.
func (p *pace) each(d direction) rate {
	r := p.c.l.paced.each[d]
	if k := p.c.link(); k != nil {
		r = rate(earlier(time.Duration(r), time.Duration(k.rate(d))))
	}
	return r
}

// room is how many bytes may move now.
func (p *pace) room(d direction) int {
	l, n := p.c.l, int64(math.MaxInt)
	now := l.set.loop.Clock()
	if now < p.until[d] {
		return 0
	}
	if r := p.each(d); r > 0 {
		n = r.room(&p.buckets[d], now)
	}
	if r := l.paced.all[d]; r > 0 {
		n = min(n, l.gates[d].room(p, r, now))
	}
	return int(n)
}

// moved takes what has moved out. A message of a packet connection may be more
// than there is room for: what follows waits the longer.
func (p *pace) moved(d direction, n int) {
	l := p.c.l
	now := l.set.loop.Clock()
	if r := p.each(d); r > 0 {
		p.buckets[d].take(now, r.cost(int64(n)))
	}
	if r := l.paced.all[d]; r > 0 {
		l.gates[d].bucket.take(now, r.cost(int64(n)))
		p.granted[d] = false
	}
}

// mask takes out of want what may not move now, and sees to it that the
// connection is told when it may.
func (p *pace) mask(want mux.Events) mux.Events {
	l := p.c.l
	now := l.set.loop.Clock()
	p.held = 0
	for d := range directions {
		if want&d.event() == 0 || p.room(d) > 0 {
			continue
		}
		want &^= d.event()
		p.held |= d.event()
		if r := p.each(d); r > 0 && p.until[d] <= now && r.room(&p.buckets[d], now) == 0 {
			p.until[d] = r.enough(&p.buckets[d])
		}
		if p.until[d] > now {
			if !p.timer.Set() || p.until[d] < p.timer.At() {
				l.set.loop.Arm(&p.timer, p.until[d], p)
			}
			continue
		}
		l.gates[d].queue(p)
	}
	return want
}

// Expired lets the connection go on.
func (p *pace) Expired() { p.c.resume() }

// drop forgets that it waits.
func (p *pace) drop() {
	p.held = 0
	p.c.l.set.loop.Disarm(&p.timer)
	for d := range directions {
		if p.place[d] != nil {
			p.c.l.gates[d].waiting.Remove(p.place[d])
			p.place[d] = nil
		}
	}
}

// room is how many bytes the connection may move now; what is not limited has
// no end.
func (c *conn) room(d direction) int {
	if c.rare == nil || c.rare.pace == nil || c.is(lingering) {
		return math.MaxInt
	}
	return c.rare.pace.room(d)
}

// moved counts bytes that have moved.
func (c *conn) moved(d direction, n int) {
	if c.rare != nil && c.rare.pace != nil {
		c.rare.pace.moved(d, n)
	}
}

// isPaced reports whether the connection has a rate to keep to.
func (c *conn) isPaced() bool { return c.rare != nil && c.rare.pace != nil }

// unmasked is want without what may not move now.
func (c *conn) unmasked(want mux.Events) mux.Events {
	if c.rare == nil || c.rare.pace == nil || c.is(lingering) {
		return want
	}
	return c.rare.pace.mask(want)
}

// resume waits for what there is to wait for. It was not the peer that was waited
// for until now.
func (c *conn) resume() {
	if c.rare != nil && c.rare.stalls[writing] != nil {
		c.l.stalls.renew(c.rare.stalls[writing])
	}
	switch {
	case c.fd < 0:
	case c.is(served):
		c.server().resume()
	default:
		c.waitFor(c.interest())
	}
}

// startPace makes what keeps the connection to its rates, if it has any.
func (c *conn) startPace() {
	if k := c.link(); c.l.paced != (rates{}) || k != nil && k.f.Rate > 0 {
		c.rarely().pace = &pace{c: c}
	}
}

// repace goes by rates that were changed.
func (c *conn) repace() {
	rests := c.want == 0 && (!c.isPaced() || c.rare.pace.held == 0) // its handler said so
	if c.rare != nil && c.rare.pace != nil {
		c.rare.pace.drop()
		c.rare.pace = nil
	}
	c.startPace()
	if !rests {
		c.resume()
	}
}

// repace goes by rates that were changed, for connections some in each turn.
func (l *Listener) repace() {
	now := l.tunables.rates()
	if now == l.paced {
		return
	}
	l.paced = now
	l.openGates()
	l.set.sweep(l, (*conn).repace, func() {})
}
