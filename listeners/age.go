package listeners

import (
	"errors"
	"time"
)

// ageGrace is how long a connection that is too old has to come to rest, unless
// its listener gives another time to drain.
const ageGrace = 5 * time.Second

var errAge = errors.New("max_age")

// ageLimit is when something is due because of max_age: it is asked to end, and
// if it does not, closed. A connection that ends anyway has the same time.
func (c *conn) ageLimit() time.Duration {
	at := c.opened + c.l.tunables.MaxAge
	if c.is(told | done) {
		at += c.ageGrace()
	}
	return max(at, 1)
}

func (c *conn) ageGrace() time.Duration {
	if t := c.l.spec.Drain.Timeout; t != nil {
		return *t
	}
	return ageGrace
}

// tooOld ends a connection that has reached its limit: a handler that can come
// to rest does so first.
func (c *conn) tooOld(now time.Duration) {
	if c.is(told | done) {
		c.close(errAge)
		return
	}
	c.because(ClosedByAge)
	if !c.retire(now+1, c.ageGrace()) {
		c.finish(errAge)
	}
}

// earlier is the earlier of two times; 0 is none.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
