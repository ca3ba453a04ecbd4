package listeners

import "time"

// What a driver and the loop tell each other by way of the view. In a process
// of its own a driver has none, and nobody to tell.

// canDrain tells that the handler can come to rest.
func (v *view) canDrain() {
	if v != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.drains = true
	}
}

// graceLeft is how long one that has come to rest may stay.
func (v *view) graceLeft() time.Duration {
	if v == nil {
		return 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.grace
}

// keeps tells how much of what was read is kept.
func (v *view) keeps(n int) {
	if v != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.kept = n
	}
}

// expired tells that the handler's own deadline ends the connection.
func (v *view) expired() {
	if v == nil {
		return
	}
	_ = v.loop.Post(func() { // ended: all is closed
		if !v.t.gone && !v.t.c.is(told) {
			v.t.c.because(ClosedByDeadline)
		}
	})
}
