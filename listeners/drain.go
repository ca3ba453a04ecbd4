package listeners

import (
	"slices"
	"time"
)

// A DrainPolicy is how the connections of a listener are let go when nobody
// says otherwise.
type DrainPolicy struct {
	// Timeout is the time they have to finish; nil leaves it to who asks.
	Timeout *time.Duration `json:"timeout,omitempty"`
	// LameDuck is the time in which they are left alone still, while nothing
	// is accepted any more, so that a load balancer notices.
	LameDuck time.Duration `json:"lame_duck,omitempty"`
	// Reset ends what is left at the end with RST.
	Reset bool `json:"reset_remaining,omitempty"`
}

// maxLameDuck bounds the lame-duck time, and Timeout.
const maxDrain = time.Hour

func (p DrainPolicy) check() error {
	switch {
	case p.LameDuck < 0 || p.LameDuck > maxDrain:
		return &Violation{Field: "spec.drain.lame_duck", Message: "must be from 0s to 1h"}
	case p.Timeout != nil && (*p.Timeout < 0 || *p.Timeout > maxDrain):
		return &Violation{Field: "spec.drain.timeout", Message: "must be from 0s to 1h"}
	}
	return nil
}

// drainGrace is how long a stream at rest may stay when a drain begins: a client
// at work, which asks within that time, is told by the answer that it was the
// last, and loses nothing.
const drainGrace = time.Second

// A drain is one that is going on, or is over and was not taken back.
type drain struct {
	began   time.Time
	initial int64         // connections then
	timeout time.Duration // that they have, after the lame-duck time
	until   time.Time     // when what is left is closed
	from    time.Duration // on the loop's clock: when they were told
	cut     int64         // that were closed because the time was over
	lame    bool          // they are left alone still
	stop    bool          // the sockets are to go too
}

// DrainStatus is how far a drain is.
type DrainStatus struct {
	Began   time.Time // zero: there is none
	Until   time.Time // when what is left is closed
	Initial int64     // connections when it began
	Cut     int64     // of them, closed because the time was over
}

// Drain lets the connections of a paused listener go: they have the time to
// finish, and what is left then is closed. After that it is Paused again. A
// drain that goes on can be made shorter so.
func (l *Listener) Drain(timeout time.Duration) {
	switch l.state {
	case Paused:
		l.letGo(timeout, false)
	case Draining:
		l.sooner(timeout)
	default: // Resume was quicker, or Stop
	}
}

// Stop closes the sockets, after accepting what waits in the kernel, and gives
// connections the time to finish; what is left then is closed.
func (l *Listener) Stop(timeout time.Duration) {
	switch {
	case l.state == Opened || l.state == Closed:
	case l.state != Draining:
		l.letGo(timeout, true)
	case l.drain.stop:
		l.sooner(timeout)
	default:
		l.drain.stop, l.drain.lame = true, false
		l.stopSockets()
		l.sooner(timeout)
		l.ended()
	}
}

// Revive takes a Stop back as long as the sockets are there: in the lame-duck
// time. The listener is paused then.
func (l *Listener) Revive() bool {
	if l.state != Draining || !l.drain.stop || !l.drain.lame {
		return false
	}
	l.set.loop.Disarm(&l.deadline)
	l.drain = drain{}
	l.state = Paused // nobody is told: it is on its way to Running
	return true
}

func (l *Listener) letGo(timeout time.Duration, stop bool) {
	lame := l.spec.Drain.LameDuck
	if timeout <= 0 || stop && l.state == Paused { // who watches has noticed
		lame = 0
	}
	now := l.set.loop.Now()
	l.drain = drain{began: now, initial: l.active, timeout: timeout, until: now.Add(lame + timeout), lame: lame > 0, stop: stop}
	if lame == 0 {
		l.to(Draining)
		l.endLame()
		return
	}
	if l.paused == NotPaused && l.Pause(max(l.spec.PauseMode, Hold)) != nil {
		_ = l.Pause(Hold) // takes no privilege: it never fails
	}
	l.to(Draining)
	l.set.loop.Arm(&l.deadline, l.set.loop.Clock()+lame, l)
	l.ended()
}

// endLame begins what the drain is about.
func (l *Listener) endLame() {
	l.drain.lame, l.drain.from = false, l.set.loop.Clock()
	if l.drain.stop {
		l.stopSockets()
	}
	l.drainFor(l.drain.timeout)
	if l.state == Draining && l.drain.timeout > 0 {
		l.everywhere((*conn).drain)
	}
	l.ended()
}

func (l *Listener) stopSockets() {
	if x := l.passer(); x != nil {
		x.halt()
	}
	for _, e := range slices.Concat(l.endpoints, l.leaving) {
		e.stop()
	}
}

// sooner makes a drain end after the time, unless it does before that.
func (l *Listener) sooner(timeout time.Duration) {
	switch {
	case !l.set.loop.Now().Add(timeout).Before(l.drain.until):
	case l.drain.lame:
		l.drain.timeout = timeout
		l.endLame()
	default:
		l.drainFor(timeout)
	}
}

func (l *Listener) drainFor(d time.Duration) {
	if l.state != Draining {
		return
	}
	l.drain.until = l.set.loop.Now().Add(d)
	if d <= 0 {
		l.set.loop.Disarm(&l.deadline)
		l.Expired()
		return
	}
	l.set.loop.Arm(&l.deadline, l.set.loop.Clock()+d, l)
}

// Expired is the end of the lame-duck time, or of a drain.
func (l *Listener) Expired() {
	if l.drain.lame {
		l.endLame()
		return
	}
	if l.drain.stop {
		for _, e := range slices.Concat(l.endpoints, l.leaving) {
			if s, ok := e.(*streamSocket); ok {
				s.leave() // even if something waits there still
			}
		}
	}
	l.everywhere((*conn).drained)
}

// ended finishes a drain when nothing of what was to go is left.
func (l *Listener) ended() {
	if l.state != Draining || l.active > 0 || l.passed || l.drain.lame && l.drain.stop {
		return
	}
	left := isOpen
	if !l.drain.stop {
		left = isEnding
	}
	if slices.ContainsFunc(l.endpoints, left) || slices.ContainsFunc(l.leaving, left) {
		return
	}
	l.set.loop.Disarm(&l.deadline)
	if l.drain.stop {
		l.gatherShards()
		l.to(Closed)
		return
	}
	l.drain.lame = false
	l.to(Paused)
}

func isOpen(e endpoint) bool { return !isClosed(e) }

// isEnding reports whether an endpoint still takes what waits there.
func isEnding(e endpoint) bool {
	s, ok := e.(*streamSocket)
	return ok && s.fd >= 0 && s.ending != serving
}
