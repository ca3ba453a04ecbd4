package manager

import (
	"context"
	"sync"

	"github.com/sockmgr/sockmgr/listeners"
)

// What a ring keeps for watchers that are behind: so many things, or fewer that
// take so many bytes.
const (
	ringSize  = 8192
	ringBytes = 16 << 20
)

// A ring keeps the last of what happened. Publishing never waits for a watcher:
// each pulls at its own speed, and one that falls too far behind is told so.
type ring[T any] struct {
	weigh  func(T) int   // bytes that an item takes, about
	mu     sync.Mutex    // guards the rest
	items  []*T          // a slice of pointers is moved as it grows, not what they point at
	bytes  int           // of all items
	first  uint64        // sequence number before that of items[0]
	last   uint64        // sequence number of the newest
	more   chan struct{} // closed at the next item; nil when nobody waits
	closed bool
}

func newRing[T any](first uint64, weigh func(T) int) *ring[T] {
	return &ring[T]{weigh: weigh, first: first, last: first}
}

// publish adds what item returns for its sequence number.
func (r *ring[T]) publish(item func(seq uint64) T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.last++
	x := new(T)
	*x = item(r.last)
	r.items = append(r.items, x)
	r.bytes += r.weigh(*x)
	for len(r.items) > ringSize || r.bytes > ringBytes && len(r.items) > 1 {
		r.bytes -= r.weigh(*r.items[0])
		r.items[0] = nil // nothing holds on to it
		r.items = r.items[1:]
		r.first++
	}
	r.wakeLocked()
}

// at is the place of a sequence number.
func (r *ring[T]) at(seq uint64) *T { return r.items[seq-r.first-1] }

func (r *ring[T]) wakeLocked() {
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
}

func (r *ring[T]) waitLocked() <-chan struct{} {
	if r.more == nil {
		r.more = make(chan struct{})
	}
	return r.more
}

// nudge wakes who waits although nothing was published.
func (r *ring[T]) nudge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeLocked()
}

func (r *ring[T]) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.wakeLocked()
}

// wait returns a channel that is closed at the next item.
func (r *ring[T]) wait() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waitLocked()
}

// missed is how many of those that followed seq are not kept any more.
func (r *ring[T]) missed(seq uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(seq, r.first) - seq
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
	return x, r.waitLocked(), nil
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
