package listeners

import (
	"errors"
	"io"
	"time"
)

// arm makes sure that the timer goes off by the time the next limit is due. A
// limit that moves into the future costs nothing: the timer goes off at the
// old time, finds nothing due, and is armed anew.
func (c *conn) arm() {
	if c.is(served) && c.server().leaving() {
		return
	}
	next := c.deadline
	if idle := c.l.tunables.IdleTimeout; idle > 0 && (next == 0 || c.active+idle < next) {
		next = c.active + idle
	}
	if c.l.tunables.MaxAge > 0 {
		next = earlier(next, c.ageLimit())
	}
	loop := c.l.set.loop
	switch {
	case next == 0:
		loop.Disarm(&c.timer)
	case !c.timer.Set() || next < c.timer.At():
		loop.Arm(&c.timer, next, c)
	}
}

// Expired closes what has been idle or lingering too long, and tells the
// handler of its deadline.
func (c *conn) Expired() {
	now := c.l.set.loop.Clock()
	if c.deadline != 0 && now >= c.deadline {
		c.deadline = 0
		if c.is(done) {
			c.close(io.EOF)
			return
		}
		if c.is(told) && !c.Pending() && c.unread() > 0 && !c.isCut() { // it came just in time
			c.deadline = now + time.Millisecond
			c.arm()
			return
		}
		if h, ok := c.handler.(Expirer); ok {
			err := c.expire(h)
			if errors.Is(err, errDone) && !c.is(told) {
				c.because(ClosedByDeadline)
			}
			c.settle(c.input(), err)
		}
	}
	if c.is(served) {
		c.server().touch()
	}
	if idle := c.l.tunables.IdleTimeout; c.fd >= 0 && idle > 0 && now >= c.active+idle {
		c.close(errIdle)
	}
	if c.fd >= 0 && c.l.tunables.MaxAge > 0 && now >= c.ageLimit() {
		c.tooOld(now)
	}
	if c.fd >= 0 {
		c.arm()
	}
}
