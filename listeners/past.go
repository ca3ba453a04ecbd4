package listeners

import (
	"time"

	"golang.org/x/sys/unix"
)

// maxOdd bounds what a Past remembers; connections beyond get what is wanted of
// their listener.
const maxOdd = 1 << 16

// A Past is what the open connections of a listener had before one option of
// theirs was changed, so that it can be given back. Nearly all have what is
// wanted of their listener: only others are remembered one by one. Loop only.
type Past struct {
	option *Option
	want   Value // what is wanted of the listener
	plain  Value // the same, or for the default what that is
	since  time.Duration
	older  bool             // connections that were open then have been changed
	newer  bool             // those that came later have been, by the listener
	odd    map[uint64]Value // by cookie: what others had, or shall have
}

// NewPast begins to remember. want is what is wanted of the listener, Null for
// the default.
func (s *Set) NewPast(o *Option, want Value) *Past {
	return &Past{option: o, want: want, plain: o.settable(want), since: s.loop.Clock(), odd: map[uint64]Value{}}
}

// Newer says that connections to come have another value from the listener.
func (p *Past) Newer() { p.newer = true }

// Older says that all connections that are open have been changed.
func (p *Past) Older() { p.older = true }

// Kept makes that the connections that are open keep what they have now.
func (p *Past) Kept(s *Set) {
	p.since, p.older = s.loop.Clock(), false
	clear(p.odd)
}

// Later is what a connection was told for good meanwhile: it gets that.
func (p *Past) Later(cookie uint64, v Value) { p.odd[cookie] = v }

// changed reports whether a connection has been changed already, so that what
// it has now is not its past.
func (p *Past) changed(c *conn) bool {
	return p.older && c.opened < p.since || p.newer && c.opened >= p.since
}

// remember takes down what the connection has.
func (p *Past) remember(c *conn) {
	if p.changed(c) || len(p.odd) >= maxOdd {
		return
	}
	if v, err := p.option.before(c.socket()); err == nil && v != p.want && v != p.plain {
		p.odd[c.cookie()] = v
	}
}

// before reads a value that gives a socket back what it has when it is set.
func (o *Option) before(s *socket) (Value, error) {
	v, err := o.Get(s)
	if err != nil || o.lock == 0 {
		return v, err
	}
	if locks, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK); err != nil || locks&o.lock == 0 {
		return Value{}, nil //nolint:nilerr // an older kernel: the default must do
	}
	v.n /= 2 // which the kernel doubles again
	return v, nil
}

// TryConns is TuneConns that remembers what was there.
func (s *Set) TryConns(p *Past, l *Listener, v Value, from int, results []Result) ([]Result, int) {
	o := p.option
	v, asked := o.settable(v), v
	next := s.someConns(l, o, 1+o.cost(v), from, func(c *conn) {
		p.remember(c)
		results = tally(results, c.tune(o, v).asked(asked))
	})
	return results, next
}

// TryConn is TuneConn that remembers what was there.
func (s *Set) TryConn(p *Past, fd int, cookie uint64, v Value) (r Result, found bool) {
	if c, ok := s.loop.HandlerOf(fd).(*conn); ok && c.cookie() == cookie {
		if was, err := p.option.before(c.socket()); err == nil {
			p.odd[cookie] = was
		}
	}
	return s.TuneConn(fd, cookie, p.option, v)
}

// RevertConns gives connections of l back what they had, as TuneConns sets it.
func (s *Set) RevertConns(p *Past, l *Listener, from int, results []Result) ([]Result, int) {
	cost := p.option.cost(Value{}) // some may get the default
	next := s.someConns(l, p.option, cost, from, func(c *conn) {
		v, odd := p.odd[c.cookie()]
		if !odd {
			v = p.plain
		}
		if odd || p.changed(c) {
			results = tally(results, c.tune(p.option, v))
		}
	})
	return results, next
}

// RevertConn gives one connection back what it had. found is false when it is
// gone.
func (s *Set) RevertConn(p *Past, fd int, cookie uint64) (r Result, found bool) {
	return s.TuneConn(fd, cookie, p.option, p.odd[cookie])
}

// Option is the option whose past it is.
func (p *Past) Option() *Option { return p.option }
