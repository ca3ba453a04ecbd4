package manager

import (
	"context"
	"sync"

	"github.com/sockmgr/sockmgr/listeners"
)

// ringSize is how many things are kept for watchers that are behind.
const ringSize = 8192

// A ring keeps the last of what happened. Publishing never waits for a watcher:
// each pulls at its own speed, and one that falls too far behind is told so.
type ring[T any] struct {
	mu     sync.Mutex
	items  []T
	first  uint64        // sequence numbers begin after this one
	last   uint64        // sequence number of the newest
	more   chan struct{} // closed and replaced at every item
	closed bool
}

func newRing[T any](first uint64) *ring[T] {
	return &ring[T]{first: first, last: first, more: make(chan struct{})}
}

// publish adds what item returns for its sequence number.
func (r *ring[T]) publish(item func(seq uint64) T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.last++
	if x := item(r.last); len(r.items) < ringSize {
		r.items = append(r.items, x)
	} else {
		*r.at(r.last) = x
	}
	r.wakeLocked()
}

// at is the place of a sequence number.
func (r *ring[T]) at(seq uint64) *T { return &r.items[(seq-r.first-1)%ringSize] }

func (r *ring[T]) wakeLocked() {
	close(r.more)
	r.more = make(chan struct{})
}

// nudge wakes who waits although nothing was published.
func (r *ring[T]) nudge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.wakeLocked()
	}
}

func (r *ring[T]) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		close(r.more)
	}
}

// wait returns a channel that is closed at the next item.
func (r *ring[T]) wait() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.more
}

// seq is the sequence number of the newest.
func (r *ring[T]) seq() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// after returns what follows seq, or a channel to wait on.
func (r *ring[T]) after(seq uint64) (x T, more <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case seq > r.last || r.last-seq > uint64(len(r.items)):
		return x, nil, &listeners.Fault{
			Reason: listeners.RevisionCompacted, Message: "what followed is not kept any more", Fix: "list again and watch from there",
		}
	case seq < r.last:
		return *r.at(seq + 1), nil, nil
	case r.closed:
		return x, nil, &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is shutting down"}
	}
	return x, r.more, nil
}

// next waits for what follows seq.
func (r *ring[T]) next(ctx context.Context, seq uint64) (T, error) {
	for {
		x, more, err := r.after(seq)
		if err != nil || more == nil {
			return x, err
		}
		select {
		case <-ctx.Done():
			return x, ctx.Err()
		case <-more:
		}
	}
}

// kept returns all that is kept, newest first.
func (r *ring[T]) kept() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]T, 0, len(r.items))
	for seq := r.last; seq > r.last-uint64(len(r.items)); seq-- {
		all = append(all, *r.at(seq))
	}
	return all
}
