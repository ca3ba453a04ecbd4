package listeners

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A stall is output that the kernel does not take: of a connection, for its
// client, or of what its client sent, for the upstream. There is one only while
// output waits, and it begins anew whenever some of that is taken. Loop only.
type stall struct {
	c     *conn
	d     direction     // writing: for the client; reading: for the upstream
	since time.Duration // on the loop's clock
	taken uint64        // by the kernel, until then
	kept  int64         // bytes that are in memory for it, as they are counted
	asked bool          // and those that the kernel has are among them
	left  int64         // of these, when it was asked last

	next, prev *stall // in the order of since
}

// stalls are those of a listener. Most of them are over before anybody looks.
type stalls struct {
	l           *Listener
	first, last *stall
	fresh       *stall // the first whose kernel was not asked; those before it were
	kept        int64
	place       int // among those that are not empty
	timer       mux.Timer
	told        slowness
}

// askAfter is when a stall is one whose peer does not read, so that what the
// kernel keeps for it counts too: up to 4 MiB, of what all TCP sockets of the host
// share.
const askAfter = 100 * time.Millisecond

// Errors of connections that are ended because nobody reads.
var (
	errStalled = errors.New("write_timeout")
	errSlow    = errors.New("too much is kept for peers that do not read")
)

// isUnread reports whether the connection ends because its peer, or its
// upstream, does not read: RST then, since what was sent would wait for ever.
func isUnread(why error) bool { return errors.Is(why, errStalled) || errors.Is(why, errSlow) }

// noteOutput keeps account of output that waits. It is called whenever it is
// settled what a connection waits for, if there is output, or was.
func (c *conn) noteOutput() {
	if c.link() != nil { // which takes what it likes, when it likes
		c.note(writing, false, 0, 0)
		return
	}
	c.note(writing, c.wantsToWrite(), c.sent, c.kept())
}

// kept is how many bytes are in memory for it.
func (c *conn) kept() int {
	if c.queues == nil {
		return 0
	}
	return len(c.queues.out) + len(c.queues.in)
}

// wantsToWrite reports whether output waits, or would be made if it were taken.
func (c *conn) wantsToWrite() bool { return c.Pending() || c.is(feeds) && !c.is(done) }

// noteFlows is noteOutput of a relay.
func (r *relay) noteFlows() {
	r.c.note(writing, r.back.pending() && r.c.link() == nil, r.c.sent, int(r.back.held()))
	r.c.note(reading, r.there.pending() && r.isOpen, r.c.received-r.there.held(), int(r.there.held()))
}

// forgetOutput is for a connection that is closed.
func (c *conn) forgetOutput() {
	c.note(writing, false, 0, 0)
	c.note(reading, false, 0, 0)
}

func (c *conn) note(d direction, waits bool, taken uint64, kept int) {
	switch {
	case waits:
		c.l.stalled(c, d, taken, int64(kept))
	case c.rare != nil && c.rare.stalls[d] != nil:
		s := c.rare.stalls[d]
		c.rare.stalls[d] = nil
		if *c.rare == (rare{}) {
			c.rare = nil
		}
		c.l.stalls.drop(s)
	}
}

func (l *Listener) stalled(c *conn, d direction, taken uint64, kept int64) {
	if l.stalls == nil {
		l.stalls = &stalls{l: l}
	}
	q := l.stalls
	s := c.rarely().stalls[d]
	switch {
	case s == nil:
		s = l.set.slow.take()
		*s = stall{c: c, d: d, taken: taken}
		c.rare.stalls[d] = s
		q.push(s)
	case s.taken != taken:
		s.taken = taken
		q.renew(s)
	case s.asked:
		return // what the kernel has is counted, and what we have did not change
	}
	q.count(s, kept-s.kept)
	l.set.slow.check(l)
}

// count adds to what is kept.
func (q *stalls) count(s *stall, n int64) {
	s.kept += n
	q.kept += n
	q.l.set.slow.kept += n
}

// drop forgets a stall that is over.
func (q *stalls) drop(s *stall) {
	q.remove(s)
	q.count(s, -s.kept)
	q.l.set.slow.give(s)
}

// push puts a stall that begins now behind all others.
func (q *stalls) push(s *stall) {
	s.since = q.l.set.loop.Clock()
	s.prev, s.next = q.last, nil
	if q.last == nil {
		q.first = s
		q.l.set.slow.join(q)
	} else {
		q.last.next = s
	}
	q.last = s
	if q.fresh == nil {
		q.fresh = s
	}
	if !q.timer.Set() {
		q.arm()
	}
}

func (q *stalls) remove(s *stall) {
	if q.fresh == s {
		q.fresh = s.next
	}
	if s.prev == nil {
		q.first = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		q.last = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
	if q.first == nil {
		q.l.set.slow.leave(q)
	}
}

// arm sees to it that somebody looks when there is something to be seen. A timer
// that is set too early finds nothing, and costs less than to set it anew with
// every stall.
func (q *stalls) arm() {
	var at time.Duration
	if q.fresh != nil {
		at = q.fresh.since + askAfter
	}
	if timeout := q.l.tunables.WriteTimeout; timeout > 0 && q.first != nil {
		at = earlier(at, q.first.since+timeout)
	}
	if at != 0 {
		q.l.set.loop.Arm(&q.timer, at, q)
	}
}

// Expired asks the kernel about those that have become slow, and ends those whose
// time is up, a bounded number a turn.
func (q *stalls) Expired() {
	now := q.l.set.loop.Clock()
	for n := 0; n < sweepCalls && q.fresh != nil && now-q.fresh.since >= askAfter; n++ {
		s := q.fresh
		q.fresh = s.next
		if !s.asked {
			s.asked, s.left = true, s.queued()
			q.count(s, s.left)
		}
	}
	timeout := q.l.tunables.WriteTimeout
	for n := 0; n < sweepCalls && timeout > 0 && q.first != nil && now-q.first.since >= timeout; n++ {
		q.end(q.first, errStalled)
	}
	q.l.set.slow.check(q.l)
	q.arm()
}

// queued is what the kernel has of it.
func (s *stall) queued() int64 {
	fd := int(s.c.fd)
	if s.d == reading { // only a relay has that
		fd = int(s.c.relay().fd)
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0 // it cannot be told of this kind of socket
	}
	return int64(n)
}

// renew begins a stall anew: some of it was taken, or it was the daemon that let
// it wait.
func (q *stalls) renew(s *stall) {
	q.remove(s)
	if s.asked { // it will be again
		s.asked = false
		q.count(s, -s.kept)
	}
	q.push(s)
}

// isRead reports whether the peer reads, and gives it the time anew. The kernel
// takes nothing before a third of its buffer is free, up to 4 MiB, or all of it (see
// narrow): that may take who reads steadily longer than the time. While too much is
// kept a byte now and then is not enough.
func (q *stalls) isRead(s *stall, why error) bool {
	if !s.asked {
		return false
	}
	least := int64(1)
	if errors.Is(why, errSlow) {
		least = narrowBytes
	}
	took := s.left - s.queued()
	if took < least {
		return false
	}
	s.left -= took
	q.count(s, -took)
	q.remove(s)
	q.push(s)
	return true
}

// end ends the connection, unless it waits for a rate, or its peer reads.
func (q *stalls) end(s *stall, why error) {
	c := s.c
	if s.d == writing && c.isPaced() && c.rare.pace.held&mux.Writable != 0 {
		q.renew(s)
		return
	}
	if q.isRead(s, why) {
		return
	}
	q.l.endedSlow(why)
	c.forgetOutput() // it may take a while to close
	c.reset(why)
}

// endedSlow counts one that was ended, on the first loop.
func (l *Listener) endedSlow(why error) {
	if whole := l.whole; whole != nil {
		_ = whole.set.loop.Post(func() { whole.endedSlow(why) }) // ended: nobody is told any more
		return
	}
	if l.stalls == nil {
		l.stalls = &stalls{l: l}
	}
	l.stalls.told.count(l, why)
}

// restall goes by a time or a limit that was changed.
func (l *Listener) restall() {
	if l.stalls != nil {
		l.stalls.arm()
		l.set.slow.check(l)
	}
}
