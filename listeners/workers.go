package listeners

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

// With more than one loop the first has everything but connections: it owns all
// listening sockets, datagram sockets, upstreams, programs and limits, accepts, and
// gives a connection to the loop that has least to do. The others are workers, and
// have nothing but connections.
//
//	first loop                                   a worker
//	accept, limit, count --- admission ------->  take, serve
//	choose and dial      --- conn, relay ----->  settle, serve
//	count out, books     <-- departure --------  close
//	settle, serve        <-- conn -------------  sent home
//
// Nothing is shared but what does not change: what one loop has to say to another
// is posted to it. Both lines of what is posted keep their order, so a worker
// knows of a change before it gets a connection that was accepted after it, and
// the first loop has counted a connection out before anybody can see that it is
// closed.

const (
	// flightMost is how many connections are on their way to a worker at most:
	// of more, that loop does not keep up, and another serves them.
	flightMost = 256
	// loadEvery is how often the loops are asked how busy they are, while
	// connections come.
	loadEvery = time.Second
	// loadFew is a share of its time in which a loop is taken for idle.
	loadFew = 0.02
	// loadOpen is what an open connection counts for that moves nothing.
	loadOpen = 1e-4
	// pipesShare is the part of the limit of descriptors that a worker has for
	// its pipes, and pipesMost how many of them it has at most.
	pipesShare, pipesMost = 32, 64
)

// A worker is one of the other loops, as the first one knows it.
type worker struct {
	set    *Set
	conns  int64 // given to it, and not closed or sent home
	load   load
	flight atomic.Int32 // given to it, and not taken yet
}

// A load is how busy a loop was when it was asked last.
type load struct {
	share  float64       // of its time
	conns  int64         // that it had then
	busy   time.Duration // in all
	clock  time.Duration // when
	answer bool          // there was one
}

// AddWorker makes loop serve connections of s, which is the first loop's. It is for
// before the loops run, and loop is to go by the same clock: see mux.Loop.Beside.
func (s *Set) AddWorker(loop *mux.Loop) *Set {
	w := &Set{loop: loop, log: s.log, first: s, number: len(s.workers) + 1, buf: make([]byte, 64<<10)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	if s.limit > 0 {
		share := min(pipesMost, s.limit/pipesShare)
		w.limit = max(1, share)
		s.limit -= share
	}
	s.workers = append(s.workers, &worker{set: w})
	w.slow.set = w
	if s.slow.all > 0 {
		s.slow.most = max(1, s.slow.all/int64(len(s.workers)+1))
		for _, other := range s.workers {
			other.set.slow.most = s.slow.most
		}
	}
	return w
}

// Number is that of the loop; the first is 0.
func (s *Set) Number() int { return s.number }

// Open is how many connections each loop has, the first one first. It is for the
// first loop.
func (s *Set) Open() []int64 {
	all := []int64{s.ownConns()}
	for _, w := range s.workers {
		all = append(all, w.conns)
	}
	return all
}

// ownConns is how many connections the first loop serves itself.
func (s *Set) ownConns() int64 {
	n := s.open
	for _, w := range s.workers {
		n -= w.conns
	}
	return n
}

// idlest is the worker that has least to do; nil when the first loop has less, or
// nobody can take a connection now.
func (s *Set) idlest() (best *worker) {
	if s.home {
		return nil
	}
	s.askLoads()
	own := s.ownConns()
	each := s.shareOfOne()
	least := s.load.expect(own, each)
	for _, w := range s.workers {
		if w.flight.Load() >= flightMost {
			continue
		}
		if e := w.load.expect(w.conns, each); e < least || best == nil && e <= least {
			best, least = w, e
		}
	}
	return best
}

// expect is the share of its time that a loop is busy with so many connections, if
// those that came since it was asked are like all others, and those that went were
// like its own.
func (l *load) expect(conns int64, each float64) float64 {
	e := float64(conns) * loadOpen
	switch {
	case conns < l.conns:
		return e + l.known()*float64(conns)/float64(l.conns)
	default:
		return e + l.known() + float64(conns-l.conns)*each
	}
}

// known is the share, unless it says nothing.
func (l *load) known() float64 {
	if l.share < loadFew {
		return 0
	}
	return l.share
}

// shareOfOne is what one connection took of the time of a loop, on average.
func (s *Set) shareOfOne() float64 {
	share, conns := s.load.share, s.load.conns
	for _, w := range s.workers {
		share += w.load.share
		conns += w.load.conns
	}
	if share < loadFew || conns <= 0 {
		return 0
	}
	return share / float64(conns)
}

// askLoads has the loops tell how busy they are, unless they have told just now.
// Nobody waits for the answers.
func (s *Set) askLoads() {
	now := s.loop.Clock()
	if s.asked != 0 && now-s.asked < loadEvery {
		return
	}
	s.asked = max(now, 1)
	s.load.told(s.loop.Busy(), now, s.ownConns())
	for _, w := range s.workers {
		_ = w.set.loop.Post(func() { // ended: it takes no connection either
			busy, clock := w.set.loop.Busy(), w.set.loop.Clock()
			_ = s.loop.Post(func() { w.load.told(busy, clock, w.conns) })
		})
	}
}

// told notes an answer.
func (l *load) told(busy, clock time.Duration, conns int64) {
	if l.answer && clock > l.clock {
		l.share = float64(busy-l.busy) / float64(clock-l.clock)
		if conns < l.conns { // it was busy with some that are gone
			l.share *= float64(conns) / float64(l.conns)
		}
	}
	l.busy, l.clock, l.conns, l.answer = busy, clock, conns, true
}

// CallHome has all connections served by the first loop, and no other gets one,
// until SendOut. done is called on the first loop once all are there; if the loops
// end before, it is not.
func (s *Set) CallHome(done func()) {
	s.home = true
	left := len(s.workers)
	if left == 0 {
		done()
		return
	}
	for _, w := range s.workers {
		w.set.callHome(nil, func() {
			if left--; left == 0 {
				s.gatherAll()
				done()
			}
		})
	}
}

// callHome has connections of a shard, nil: all, served by the first loop again.
// done is called there.
func (s *Set) callHome(sh *Listener, done func()) {
	_ = s.loop.Post(func() { // ended: all is closed
		s.sweep(sh, (*conn).goHome, func() { _ = s.first.loop.Post(done) })
	})
}

// gatherAll takes what shards have counted into the books of their listeners.
func (s *Set) gatherAll() {
	for l := range s.sharded {
		l.gatherShards()
	}
}

// SendOut ends CallHome. With spread those connections that can be served by other
// loops are given to them, some in each turn.
func (s *Set) SendOut(spread bool) {
	s.home = false
	if spread && len(s.workers) > 0 {
		s.sweep(nil, func(c *conn) { c.leave() }, func() {})
	}
}
