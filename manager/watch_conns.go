package manager

import (
	"context"
	"errors"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// A ConnEvent is a connection that opened, or one that closed: then its state
// is listeners.ConnClosed.
type ConnEvent struct {
	Conn    listeners.ConnStatus
	Dropped uint64 // events before this one that are lost: the watcher is too slow
}

// weight is about what an event takes in memory: two addresses, and TCP_INFO.
func (ConnEvent) weight() int { return 1024 }

// connFeed passes what the loop tells to those who watch. There is one while
// someone does: without, an open and a close cost a comparison.
type connFeed struct {
	ring     *ring[ConnEvent]
	watchers int // loop only
}

// ConnOpened is listeners.ConnWatcher.
func (f *connFeed) ConnOpened(st listeners.ConnStatus) {
	f.ring.publish(func(uint64) ConnEvent { return ConnEvent{Conn: st} })
}

// ConnClosed is listeners.ConnWatcher.
func (f *connFeed) ConnClosed(st listeners.ConnStatus) { f.ConnOpened(st) }

// A ConnWatch sees connections open and close. It is for one goroutine.
type ConnWatch struct {
	m     *Manager
	feed  *connFeed
	seq   uint64
	Began time.Time // of the turn from whose end on nothing is missed
}

// WatchConns begins to watch; Close ends it. The loop never waits for a watcher:
// one that is too slow is told how much it has missed.
func (m *Manager) WatchConns(ctx context.Context) (*ConnWatch, error) {
	w := &ConnWatch{m: m}
	err := m.on(ctx, func() error {
		if m.feed == nil {
			m.feed = &connFeed{ring: newRing(0, ConnEvent.weight)}
			m.set.WatchConns(m.feed)
		}
		m.feed.watchers++
		w.feed, w.seq, w.Began = m.feed, m.feed.ring.seq(), m.loop.Time(m.loop.Clock())
		return nil
	})
	if err == nil {
		if err = m.settled(ctx); err != nil { // the other loops have heard of it
			w.Close()
		}
	}
	return w, err
}

// Close ends the watch.
func (w *ConnWatch) Close() {
	_ = w.m.loop.Post(func() { // or the loop has ended, and with it all watching
		if w.feed.watchers--; w.feed.watchers == 0 {
			w.m.set.WatchConns(nil)
			w.m.feed = nil
		}
	})
}

// Next waits for the next event.
func (w *ConnWatch) Next(ctx context.Context) (ConnEvent, error) {
	for dropped := uint64(0); ; {
		dropped += w.feed.ring.missed(w.seq + dropped)
		e, err := w.feed.ring.next(ctx, w.seq+dropped)
		switch {
		case errors.Is(err, listeners.RevisionCompacted):
			continue // it fell behind again
		case err != nil:
			return e, err
		}
		w.seq += dropped + 1
		e.Dropped = dropped
		return e, nil
	}
}

// Waiting reports whether Next would not wait.
func (w *ConnWatch) Waiting() bool { return w.feed.ring.seq() > w.seq }

// Turn is when a turn of the loops began, of that which is behind the others. What
// they do afterwards, also in what is left of that turn, has this time or a later
// one.
func (w *ConnWatch) Turn(ctx context.Context) (began time.Time, err error) {
	for number, loop := range w.m.loops {
		if err = w.m.onLoop(ctx, number, func() error {
			if at := loop.Time(loop.Clock()); number == 0 || at.Before(began) {
				began = at
			}
			return nil
		}); err != nil {
			break
		}
	}
	return began, err
}
