package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/sockets"
)

// An Estate is what one daemon leaves to the next, or a part of it.
type Estate struct {
	listeners.Saved
	Entries  []SavedEntry
	Sockets  []sockets.Saved
	Events   []Event // oldest first
	Revision int64   // of a store in memory
	Lost     []string
}

// SavedEntry is one listener, with sockets or without.
type SavedEntry struct {
	Name     string
	Record   []byte // JSON, as in the store
	Live     bool
	Counters *listeners.Counters // of one that is not
	Started  time.Time
	Cause    Cause
	Failure  string
	Retry    time.Time
	Backoff  time.Duration
}

// HandedOver is nil, or what there is to say to who calls this daemon still.
func (m *Manager) HandedOver() error {
	if m.handed.Load() {
		return handedOver()
	}
	return nil
}

func handedOver() error {
	return &listeners.Fault{
		Reason: listeners.DaemonDraining, Message: "the daemon hands over to another process", Fix: "call again: that one answers",
		Meta: map[string]string{"handed_over": "true"},
	}
}

// An Heir is the process that everything is handed over to, as the manager needs
// it.
type Heir struct {
	// Store is called when the store is free: the heir opens it, which may take a
	// while.
	Store func() error
	// Take is called on the loop, which stands still from then on, for each part.
	// files are to be copied to the heir. Neither is of use after it returns.
	Take func(part *Estate, files []int) error
	// Go is called on the loop after the last. Without an error the heir has all,
	// and goes on; with one, here or before, it is gone for good.
	Go func() error
	// Stays says that this process outlives what it leaves: programs that end with
	// it may move too.
	Stays bool
}

// startsTime is how long programs that are on their way have to be there, so that
// they move too.
const startsTime = 500 * time.Millisecond

// SnapshotStore writes a copy of the store, none of one in memory.
func (m *Manager) SnapshotStore(w io.Writer) error {
	m.life.Lock() // no change is under way
	defer m.life.Unlock()
	return m.store.snapshot(w)
}

// Epoch is where the clock of the loop began: see mux.ContinueLoop.
func (m *Manager) Epoch() (time.Duration, error) { return m.loop.Epoch() }

// ErrNotSaved is that an upgrade failed and took the store with it.
var ErrNotSaved = errors.New("no change can be saved any more")

// HandOver leaves everything to another process. Changes wait meanwhile. When it
// fails, nothing has changed. After it only Retire may be called; whatever else
// is asked is refused, so that who asks calls the other process.
//
// The loop stands still while its state is copied and until the heir has taken it
// up: there is nothing it could do meanwhile that would not have to be told the
// heir as well, and if the heir fails there is nothing to take back.
func (m *Manager) HandOver(ctx context.Context, to Heir) (err error) {
	if err := m.lockLife(ctx); err != nil {
		return err
	}
	defer m.life.Unlock()
	if m.closing {
		return &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is shutting down", Fix: "try again once it is back"}
	}
	m.settleKept(ctx)
	defer func() {
		if err != nil {
			if lost := m.store.reclaim(); lost != nil {
				m.log.Error("no change can be saved any more", "error", lost)
				err = fmt.Errorf("%w; %w: %w", err, ErrNotSaved, lost)
			}
			return
		}
		m.closing = true
	}()
	if err := errors.Join(m.store.release(), to.Store()); err != nil {
		return err
	}
	sendOut, err := m.callHome(ctx) // one loop stands still, and that is all
	if err == nil {
		release := m.set.HoldStarts(startsTime)
		defer release()
		err = m.on(ctx, func() error { return m.handOver(to) })
	}
	if err != nil {
		sendOut()
	}
	return err
}

// lockLife waits for the changes that are under way, and lets no other begin.
// What is tried goes back first: the heir knows only what is saved.
func (m *Manager) lockLife(ctx context.Context) error {
	for {
		m.mu.Lock()
		ids := slices.Collect(maps.Keys(m.tries))
		m.mu.Unlock()
		for _, id := range ids {
			if err := m.end(ctx, id, false, "the daemon is upgraded"); err != nil && m.tryOf(id) != nil {
				return err
			}
		}
		m.life.Lock()
		m.mu.Lock()
		none := len(m.tries) == 0
		m.mu.Unlock()
		if none {
			return nil
		}
		m.life.Unlock() // another has begun
	}
}

// handOver is on the loop.
func (m *Manager) handOver(to Heir) error {
	began := time.Now()
	var all Estate
	live, err := m.saveEntries(&all)
	if err != nil {
		return err
	}
	transfer, err := m.set.Transfer(live, m.kept, to.Stays)
	if err != nil {
		return err
	}
	events := m.keptEvents()
	slices.Reverse(events)
	all.Events = events
	all.Revision = m.store.revision.Load()
	m.changedMu.Lock()
	all.Lost = slices.Sorted(maps.Keys(m.lost))
	m.changedMu.Unlock()
	files := 0
	for more := true; more && err == nil; {
		all.Saved = transfer.Saved
		files += len(transfer.Files)
		err = to.Take(&all, transfer.Files)
		all, more = Estate{}, transfer.Next()
	}
	if err == nil {
		all.Sockets = m.sockets.Save(transfer)
		files += len(transfer.Files)
		err = to.Take(&all, transfer.Files)
	}
	if err == nil {
		err = to.Go()
	}
	if err != nil {
		return fmt.Errorf("handing over: %w", err)
	}
	m.log.Info("handed over", "connections", transfer.Moved(), "descriptors", files, "stood_still", time.Since(began).Round(time.Microsecond))
	m.left = true
	m.handed.Store(true)
	m.sockets.Left()
	transfer.Done()
	if m.kept != nil {
		m.kept.SetKeeper(nil) // it listens to the heir
	}
	return nil
}

// saveEntries saves what is wanted, and returns the listeners that move: those
// that are stopped or deleted finish here.
func (m *Manager) saveEntries(all *Estate) (live []*listeners.Listener, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, e := range m.names.all() {
		if e.deleting {
			continue
		}
		record, err := e.record.appendJSON(nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		saved := SavedEntry{Name: name, Record: record, Started: e.started, Cause: e.cause, Retry: e.retry, Backoff: e.backoff}
		if e.failure != nil {
			saved.Failure = e.failure.Error()
		}
		if l := e.live; l != nil && !e.stopping && l.State() != listeners.Closed {
			saved.Live = true
			live = append(live, l)
		} else {
			counters := e.stats.Copy(true)
			saved.Counters = &counters
		}
		all.Entries = append(all.Entries, saved)
	}
	return live, nil
}

// Retire ends a manager that has handed over, once what could not move has had
// the time to finish.
func (m *Manager) Retire(ctx context.Context, drain time.Duration) error { return m.finish(ctx, drain) }

// Staying is how many connections have not moved: they finish here.
func (m *Manager) Staying() (n int64) {
	m.mu.Lock()
	all := slices.Collect(maps.Keys(m.attached))
	m.mu.Unlock()
	_ = m.loop.Do(context.Background(), func() error { // fails when the loop has ended, and there are none
		for _, l := range all {
			n += l.Active()
		}
		return nil
	})
	return n
}
