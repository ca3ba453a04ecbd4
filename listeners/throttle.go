package listeners

import (
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

const (
	// throttleStep is how long sockets rest at least, if accept_burst lets them
	// make up for it.
	throttleStep = 10 * time.Millisecond
	// throttleCalm is how long accept_rate must not have been reached for the
	// listener to be Running again: who watches is told once, not at each rest.
	throttleCalm = time.Second
)

// A throttle keeps a listener to accept_rate. While it rests, connections wait
// in the kernel. Loop only.
type throttle struct {
	l       *Listener
	bucket  bucket
	resting bool          // the sockets are off the loop until the timer goes off
	calm    time.Duration // when the listener is no longer limited by it
	timer   mux.Timer
}

// acceptCosts are what one connection costs, and the burst.
func (t *Tunables) acceptCosts() (one, burst time.Duration) {
	one = time.Second / time.Duration(t.AcceptRate)
	n := t.AcceptBurst
	if n == 0 {
		n = t.AcceptRate
	}
	return one, one * time.Duration(n)
}

// isThrottled reports whether accept_rate is reached; if so the sockets rest
// until it allows another connection.
func (l *Listener) isThrottled() bool {
	t, now := l.throttle, l.set.loop.Clock()
	if t == nil {
		t = &throttle{l: l}
		l.throttle = t
	}
	one, burst := l.tunables.acceptCosts()
	if t.bucket.has(now, one, burst) {
		return false
	}
	t.resting, t.calm = true, now+throttleCalm
	l.set.loop.Arm(&t.timer, t.bucket.when(max(one, min(burst, throttleStep)), burst), t)
	l.limit()
	return true
}

// countAccept takes one connection out of accept_rate.
func (l *Listener) countAccept() {
	if l.throttle != nil {
		one, _ := l.tunables.acceptCosts()
		l.throttle.bucket.take(l.set.loop.Clock(), one)
	}
}

// Expired is the end of a rest, or of being limited.
func (t *throttle) Expired() {
	if t.resting {
		t.resting = false
		t.l.eachStream((*streamSocket).rise)
		t.l.set.loop.Arm(&t.timer, t.calm, t)
		return
	}
	t.l.unlimit()
}

// rethrottle goes by a rate that was changed.
func (l *Listener) rethrottle() {
	if t := l.throttle; t != nil {
		l.set.loop.Disarm(&t.timer)
		t.resting, t.calm, t.bucket = false, 0, bucket{}
	}
	if l.tunables.AcceptRate == 0 {
		l.throttle = nil
	}
}

// byRate reports whether accept_rate limits the listener, or did just now.
func (l *Listener) byRate() bool {
	return l.throttle != nil && (l.throttle.resting || l.set.loop.Clock() < l.throttle.calm)
}

// isResting reports whether the sockets shall stay off the loop.
func (l *Listener) isResting() bool {
	return l.state == Limited && (l.isFull() || l.throttle != nil && l.throttle.resting)
}
