package listeners

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

const (
	// slowTime is how long a peer may take nothing while too much is kept.
	slowTime = 5 * time.Second
	// slowCheck is how often those are looked for then.
	slowCheck = 100 * time.Millisecond
	// pressedBytes is what is read at once then, and kept of an answer: those who
	// read are served, and little comes of those who do not.
	pressedBytes = 4 << 10
	// narrowBytes is what the kernel keeps unsent for each connection then: a peer
	// that reads does not notice.
	narrowBytes = 16 << 10
	// stallsKept is how many stalls wait for their next use: they come and go with
	// every burst.
	stallsKept = 256
	// slowTold is how often it is told that connections were ended.
	slowTold = time.Minute
)

// slow is what all listeners of a loop keep for peers that do not read. Loop
// only.
type slow struct {
	set      *Set
	tell     func(l *Listener, ended uint64, why CloseReason) // nil: nobody is told
	all      int64                                            // bytes, of all loops together; 0: any number
	most     int64                                            // this loop's part of it
	kept     int64                                            // now
	busy     []*stalls                                        // those that are not empty, each at its place
	free     []*stall
	timer    mux.Timer // while too much is kept, and a while longer
	narrow   bool      // the kernel is to keep less: see narrowBytes
	calm     time.Duration
	tunables Tunables // see pressed
}

func (w *slow) take() *stall {
	if n := len(w.free); n > 0 {
		s := w.free[n-1]
		w.free = w.free[:n-1]
		return s
	}
	return &stall{}
}

func (w *slow) give(s *stall) {
	if *s = (stall{}); len(w.free) < stallsKept {
		w.free = append(w.free, s)
	}
}

func (w *slow) join(q *stalls) {
	q.place = len(w.busy)
	w.busy = append(w.busy, q)
}

func (w *slow) leave(q *stalls) {
	last := len(w.busy) - 1
	w.busy[q.place] = w.busy[last]
	w.busy[q.place].place = q.place
	w.busy[last] = nil
	w.busy = w.busy[:last]
}

// isOver reports whether too much is kept for all peers together.
func (w *slow) isOver() bool { return w.most > 0 && w.kept >= w.most }

// isOver reports whether too much is kept for the peers of the listener.
func (q *stalls) isOver() bool {
	most := q.l.tunables.TotalWriteBuffer
	return most > 0 && q.kept >= most
}

// isPressed reports either.
func (l *Listener) isPressed() bool {
	return l.set.slow.isOver() || l.stalls != nil && l.stalls.isOver()
}

// pressed are the tunables of a listener that is. They are good for one call of
// a handler.
func (l *Listener) pressed() *Tunables {
	t := &l.set.slow.tunables
	*t = l.tunables
	t.WriteBuffer = min(t.WriteBuffer, pressedBytes)
	return t
}

// check begins to look for those who are in the way, if too much is kept.
func (w *slow) check(l *Listener) {
	if !l.isPressed() || w.timer.Set() && w.narrow {
		return
	}
	w.set.loop.Arm(&w.timer, w.set.loop.Clock()+slowCheck, w)
	if !w.narrow {
		w.narrow = true
		w.set.sweep(nil, (*conn).setWidth, func() {})
	}
}

// Expired ends a bounded number of those who have taken nothing for longest, for
// as long as too much is kept.
func (w *slow) Expired() {
	now := w.set.loop.Clock()
	q, pressed := w.worst(now)
	for n := 0; n < sweepCalls && q != nil && q.first != nil && q.l.isPressed() && now-q.first.since >= slowTime; n++ {
		q.end(q.first, errSlow)
	}
	at := now + slowCheck
	switch {
	case q != nil: // there may be more
		at, w.calm = now, now
	case pressed:
		w.calm = now
	case now-w.calm >= slowTime:
		w.narrow = false
		w.set.sweep(nil, (*conn).setWidth, func() {})
		return
	}
	w.set.loop.Arm(&w.timer, at, w)
}

// setWidth has the kernel keep as much for the connection as the loop wants it to.
func (c *conn) setWidth() { c.narrow(c.l.set.slow.narrow) }

// narrow has the kernel keep less for the connection than it would, or as much
// again; but what an option says stays.
func (c *conn) narrow(on bool) {
	if _, ok := c.l.spec.Options[notSentLowWater]; ok || c.family == unix.AF_UNIX {
		return
	}
	n := 0 // as net.ipv4.tcp_notsent_lowat says
	if on {
		n = narrowBytes
	}
	_ = unix.SetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n) // it does not fail on TCP; and if it did, more were kept
}

// worst is the listener that keeps most of those over a limit that have a peer
// to be ended; pressed is that there are any over a limit.
func (w *slow) worst(now time.Duration) (worst *stalls, pressed bool) {
	all := w.isOver()
	for _, q := range w.busy {
		if !all && !q.isOver() {
			continue
		}
		pressed = true
		if now-q.first.since >= slowTime && (worst == nil || q.kept > worst.kept) {
			worst = q
		}
	}
	return worst, pressed
}

// A slowness is what is told of those that were ended.
type slowness struct {
	ended uint64
	why   CloseReason
	last  time.Duration // when it was told
	waits bool          // it is about to be
}

// count counts one, and tells of it soon, with those that follow at once.
func (n *slowness) count(l *Listener, why error) {
	n.ended++
	n.why = reasonOf(why)
	if n.waits {
		return
	}
	n.waits = true
	wait := time.Second
	if now := l.set.loop.Clock(); n.last != 0 {
		wait = max(wait, n.last+slowTold-now)
	}
	l.set.loop.After(wait, func() {
		n.waits, n.last = false, l.set.loop.Clock()
		l.set.log.Warn("connections were ended whose peers do not read", "listener", l.Name, "total", n.ended, "reason", n.why)
		if l.set.slow.tell != nil {
			l.set.slow.tell(l, n.ended, n.why)
		}
	})
}
