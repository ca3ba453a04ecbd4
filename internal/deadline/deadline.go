// Package deadline has the deadlines of a net.Conn that is not one of the
// kernel's.
package deadline

import (
	"sync"
	"time"
)

// A Deadline closes a channel when its time has passed. The zero value never
// does. All methods may be called from any goroutine.
type Deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{} // nil: nobody asked yet
}

// Set makes it pass at t; the zero time is never.
func (d *Deadline) Set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fired := d.timer != nil && !d.timer.Stop()
	d.timer = nil
	if d.ch == nil || fired || IsClosed(d.ch) { // else who waits goes on waiting, for the new time
		d.ch = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	ch := d.ch
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(ch) })
	} else {
		close(ch)
	}
}

// Passed is closed once the time is up.
func (d *Deadline) Passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ch == nil {
		d.ch = make(chan struct{})
	}
	return d.ch
}

// IsClosed reports whether nothing more is to be waited for.
func IsClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
