package manager

import (
	"context"
	"sync"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// An EventType is what happened to a listener.
type EventType uint8

// The types.
const (
	Added    EventType = iota + 1
	Modified           // what is wanted changed
	StatusChanged
	Deleted
)

// An Event is one change of a listener.
type Event struct {
	Seq  uint64
	Type EventType
	Info Info // after the change; before it for Deleted
	Time time.Time
}

// ringSize is how many events are kept for watchers that are behind.
const ringSize = 8192

// A ring keeps the last events. Publishing never waits for a watcher: each
// pulls at its own speed, and one that falls too far behind is told so.
type ring struct {
	mu     sync.Mutex
	events []Event
	last   uint64        // sequence number of the newest
	more   chan struct{} // closed and replaced at every event
	closed bool
}

func newRing() *ring { return &ring{more: make(chan struct{})} }

func (r *ring) publish(t EventType, info Info) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.last++
	e := Event{r.last, t, info, time.Now()}
	if len(r.events) < ringSize {
		r.events = append(r.events, e)
	} else {
		r.events[(r.last-1)%ringSize] = e
	}
	close(r.more)
	r.more = make(chan struct{})
}

// nudge wakes who waits without an event.
func (r *ring) nudge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		close(r.more)
		r.more = make(chan struct{})
	}
}

func (r *ring) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		close(r.more)
	}
}

// wait returns a channel that is closed at the next event.
func (r *ring) wait() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.more
}

// after returns the event that follows seq, or a channel to wait on.
func (r *ring) after(seq uint64) (e Event, more <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case seq > r.last || r.last-seq > uint64(len(r.events)):
		return e, nil, &listeners.Fault{
			Reason: listeners.RevisionCompacted, Message: "the events to go on from are not kept any more", Fix: "list again and watch from there",
		}
	case seq < r.last:
		return r.events[seq%ringSize], nil, nil // sequence numbers begin at 1
	case r.closed:
		return e, nil, &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is shutting down"}
	}
	return e, r.more, nil
}

// Seq is the sequence number of the last event: a watch from there misses
// nothing that happens from now on.
func (m *Manager) Seq() uint64 {
	m.ring.mu.Lock()
	defer m.ring.mu.Unlock()
	return m.ring.last
}

// Next waits for the event after seq.
func (m *Manager) Next(ctx context.Context, seq uint64) (Event, error) {
	for {
		e, more, err := m.ring.after(seq)
		if err != nil || more == nil {
			return e, err
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-more:
		}
	}
}
