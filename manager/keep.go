package manager

import (
	"context"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// DefaultDrain is the time that connections have to finish when nobody says
// otherwise.
const DefaultDrain = 5 * time.Second

// Waits before a listener is tried again that should run and cannot.
const (
	retryLeast = time.Second
	retryMost  = 30 * time.Second
)

var ownPid = strconv.Itoa(os.Getpid())

// changedListener is a listener and the state that it went to.
type changedListener struct {
	*listeners.Listener
	state listeners.State
}

// onChange is called on the loop, which never waits: it leaves word for the
// keeper.
func (m *Manager) onChange(l *listeners.Listener) {
	m.changedMu.Lock()
	m.changed = append(m.changed, changedListener{l, l.State()})
	m.changedMu.Unlock()
	m.poke()
}

// poke wakes the keeper.
func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default: // it has been woken already
	}
}

// keep runs until Shutdown. It tells the watchers what the loop did by itself,
// and tries again what could not run.
func (m *Manager) keep() {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-m.wake:
		case <-retry.C:
		}
		m.tellChanges()
		m.tellHeard()
		m.dueByAddress()
		next := min(m.retryFailed(), m.healLost(), m.revertDue(), m.resumeDue())
		m.dropUnused()
		if m.allClosed() && m.isClosing() {
			return
		}
		retry.Reset(next)
	}
}

func (m *Manager) isClosing() bool {
	m.life.RLock()
	defer m.life.RUnlock()
	return m.closing
}

func (m *Manager) tellChanges() {
	m.changedMu.Lock()
	changed := m.changed
	m.changed = nil
	m.changedMu.Unlock()
	last := make(map[*listeners.Listener]int, len(changed))
	for i, c := range changed {
		last[c.Listener] = i
	}
	for i, c := range changed {
		if i != last[c.Listener] {
			continue // what it went to next is told
		}
		if c.state == listeners.Closed {
			m.closed(c.Listener, nil)
			continue
		}
		e := m.lookup(c.Name)
		if e == nil || m.liveOf(e) != c.Listener {
			continue
		}
		if info := m.info(e); info.State != Stopped { // closed meanwhile: that is told next
			m.publish(m.causing(e, info.State), StatusChanged, &info)
		}
	}
}

// causing says on whose behalf a listener went to a state: that of who changed
// it last, unless it is about max_connections.
func (m *Manager) causing(e *entry, now State) context.Context {
	ctx := context.Background()
	m.with(e, func(e *entry) {
		if isBlocked(now) || isBlocked(e.told) {
			ctx = WithCause(ctx, e.cause)
		}
		e.told = now
	})
	return ctx
}

func isBlocked(s State) bool { return s == Paused || s == Draining }

func (m *Manager) liveOf(e *entry) (l *listeners.Listener) {
	m.with(e, func(e *entry) { l = e.live })
	return l
}

// closed forgets a listener that has let go of everything. What it has become is
// asked for unless it is given.
func (m *Manager) closed(l *listeners.Listener, info *Info) {
	m.mu.Lock()
	delete(m.attached, l)
	e := m.entries[l.Name]
	if e == nil || e.live != l {
		m.mu.Unlock()
		m.changes.nudge() // Shutdown counts
		return
	}
	e.live, e.stopping = nil, false
	kind := StatusChanged
	if e.deleting {
		kind = Deleted
		m.forgetLocked(l.Name)
	}
	ctx := WithCause(context.Background(), e.cause)
	m.mu.Unlock()
	if info == nil {
		now := m.info(e)
		info = &now
	}
	m.publish(ctx, kind, info)
}

// restore runs what was running when the daemon ended. What cannot run is
// tried again, by the keeper, until it can.
func (m *Manager) restore(records []Record) {
	m.dropBefore(records)
	steps := make([]*step, 0, len(records))
	for _, r := range records {
		e := &entry{record: &r, stats: &listeners.Counters{}}
		m.with(e, func(e *entry) { m.insertLocked(e) })
		steps = append(steps, &step{e: e, before: &r, after: &r})
	}
	_ = m.on(context.Background(), func() error { m.set.Restoring(true); return nil }) // the loop runs
	for rest := slices.Clone(steps); len(rest) > 0; {
		m.awaitedFirst(rest)
		n := min(restoreChunk, len(rest))
		_ = m.commit(context.Background(), rest[:n], false) // nothing is saved, so each has an error of its own
		rest = rest[n:]
	}
	_ = m.on(context.Background(), func() error { m.set.Restoring(false); return nil })
	for _, s := range steps {
		if s.err != nil {
			m.failed(s.e, s.err)
		}
	}
	m.dropUnused()
	m.recoverConns()
	if len(records) > 0 {
		m.log.Info("listeners restored", "count", len(records))
	}
}

// restoreChunk is how many listeners are bound before the first of them serves.
const restoreChunk = 64

// awaitedFirst has listeners come first whose sockets came back with clients that
// wait. All others stay in their order.
func (m *Manager) awaitedFirst(steps []*step) {
	awaited := m.kept.Awaited()
	if len(awaited) == 0 {
		return
	}
	slices.SortStableFunc(steps, func(a, b *step) int {
		return awaits(b, awaited) - awaits(a, awaited)
	})
}

func awaits(s *step, awaited map[string]bool) int {
	if s.after.Desired == WantRunning && awaited[s.after.Name] {
		return 1
	}
	return 0
}

func (m *Manager) failed(e *entry, err error) {
	name := ""
	m.with(e, func(e *entry) {
		name, e.failure = e.record.Name, err
		e.backoff = min(max(2*e.backoff, retryLeast), retryMost)
		e.retry = time.Now().Add(e.backoff)
		m.tendLocked(e)
	})
	m.told(context.Background(), StatusChanged, e)
	m.log.Warn("listener cannot run; it is tried again", "listener", name, "error", err, "retry", e.retry)
}

// retryFailed tries what is due, and returns when it wants to be called again.
func (m *Manager) retryFailed() time.Duration {
	next := time.Hour
	var due []string
	m.mu.Lock()
	for e := range m.tended {
		if e.failure == nil {
			continue
		}
		if wait := time.Until(e.retry); wait > 0 {
			next = min(next, wait)
		} else {
			due = append(due, e.record.Name)
		}
	}
	m.mu.Unlock()
	for _, name := range due {
		m.retryOne(name)
		next = min(next, retryLeast)
	}
	return next
}

func (m *Manager) retryOne(name string) {
	release, err := m.change(context.Background(), name)
	if err != nil {
		return // shutting down
	}
	defer release()
	e, record, err := m.current(name, "")
	if err != nil || m.liveOf(e) != nil || record.Desired == WantStopped {
		return
	}
	s := &step{e: e, before: record, after: record}
	if _, err := m.commitOne(context.Background(), s); err != nil {
		m.failed(e, err)
		return
	}
	m.log.Info("listener runs again", "listener", name)
}
