package listeners

import (
	"errors"
	"io"
	"time"

	"github.com/sockmgr/sockmgr/mux"
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

// The daemon may not have run for a while: stopped (SIGSTOP), or without a
// processor. Then times are over of which the peer has used its part, and what it
// sent waits to be read: a timer that is late by lateBy gives those as much time
// as it is late, lateMost at most.
const (
	lateBy   = 100 * time.Millisecond
	lateMost = time.Second
)

// hasUnread reports whether there is something to be read that will be.
func (c *conn) hasUnread() bool { return c.want&mux.Readable != 0 && c.unread() > 0 }

// Expired closes what has been idle or lingering too long, and tells the
// handler of its deadline.
func (c *conn) Expired() {
	now := c.l.set.loop.Clock()
	if at := c.deadline; at != 0 && now >= at {
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
		if late := now - at; late >= lateBy && !c.Pending() && c.hasUnread() {
			c.deadline = now + min(late, lateMost)
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
		if late := now - c.active - idle; late >= lateBy && c.hasUnread() {
			c.active = now - idle + min(late, lateMost)
		} else {
			c.close(errIdle)
		}
	}
	if c.fd >= 0 && c.l.tunables.MaxAge > 0 && now >= c.ageLimit() {
		c.tooOld(now)
	}
	if c.fd >= 0 {
		c.arm()
	}
}
