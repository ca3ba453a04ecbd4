package manager

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// Confirm makes what a try changed stay: it is wanted and saved from now on.
func (m *Manager) Confirm(ctx context.Context, id string) error {
	return m.end(ctx, id, true, "")
}

// Revert gives back at once what was there before a try.
func (m *Manager) Revert(ctx context.Context, id string) error {
	return m.end(ctx, id, false, "it was asked for")
}

func changeGone(id string) error {
	return &listeners.Fault{
		Reason: listeners.ChangeNotFound, Message: fmt.Sprintf("no change %.40q waits to be confirmed: it was confirmed, undone, or its time ran out", id),
		Fix: "sockctl events --tail 20", Meta: map[string]string{"change_id": id},
	}
}

// end ends a try, by keeping or by undoing it.
func (m *Manager) end(ctx context.Context, id string, keep bool, why string) error {
	t := m.tryOf(id)
	if t == nil {
		return changeGone(id)
	}
	release, err := m.change(ctx, t.name)
	if err != nil {
		return err
	}
	defer release()
	if m.tryOf(id) == nil { // ended meanwhile
		return changeGone(id)
	}
	if keep {
		return m.confirm(ctx, t)
	}
	return m.undo(ctx, t, why)
}

func (m *Manager) tryOf(id string) *try {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tries[id]
}

func (m *Manager) confirm(ctx context.Context, t *try) error {
	if t.scope != ScopeConnections {
		e, record, err := m.current(t.name, "")
		if err != nil {
			return err
		}
		spec := record.Spec
		for name, v := range t.values() {
			spec = spec.With(name, v)
		}
		m.forgetTry(t) // before the watchers are told
		if !spec.Equal(record.Spec) {
			if err := m.wantSpec(ctx, e, record, spec); err != nil {
				m.addTry(t) // it is tried still
				return err
			}
		}
	}
	m.forgetTry(t)
	m.tell(ctx, Event{
		Resource: t.resource(), Type: "option.confirmed", Severity: Notice, Attributes: t.attributes(),
		Message: fmt.Sprintf("%s: %s stays", t.resource(), t.text()),
	})
	return nil
}

func (m *Manager) addTry(t *try) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries[t.id] = t
}

func (m *Manager) forgetTry(t *try) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tries, t.id)
}

// undo gives back what was there before a try, whatever becomes of the caller.
func (m *Manager) undo(ctx context.Context, t *try, why string) error {
	e, err := m.entry(t.name)
	if err != nil {
		m.forgetTry(t)
		return err
	}
	var record *Record
	m.with(e, func(e *entry) { record = e.record })
	results, err := m.goBack(context.WithoutCancel(ctx), t, m.liveOf(e), record.Spec, t.scope != ScopeConnections && m.isRunning(e))
	m.forgetTry(t)
	m.tellReverted(ctx, t, results, why)
	m.retell(t, e)
	return err
}

// retell tells the watchers that the status of a listener says something else.
func (m *Manager) retell(t *try, e *entry) {
	if t.conn.cookie != 0 || m.liveOf(e) == nil {
		return
	}
	info := m.info(e)
	m.changes.publish(func(seq uint64) Change { return Change{seq, StatusChanged, &info, time.Now()} })
}

// goBack gives the sockets the old values, a bounded number a turn: the
// listener's own too, if it is said so.
func (m *Manager) goBack(ctx context.Context, t *try, l *listeners.Listener, spec listeners.Spec, own bool) (results []listeners.Result, err error) {
	if l == nil {
		return nil, nil
	}
	err = m.on(ctx, func() error {
		for _, w := range t.all {
			if own {
				results = append(results, l.Tune(w.option, spec.Options[w.option.Name]))
			}
		}
		return nil
	})
	if err != nil {
		return results, err
	}
	if t.conn.cookie != 0 {
		undone := 0
		_, err = m.at(ctx, t.conn, func(set *listeners.Set) bool {
			for _, w := range t.all[undone:] {
				r, found := set.RevertConn(w.past, t.conn.fd, t.conn.cookie)
				if !found {
					return false
				}
				results, undone = append(results, r), undone+1
			}
			return true
		})
		return results, err
	}
	for _, w := range t.all {
		if !w.option.OnConnection() {
			continue
		}
		if err = m.through(ctx, func(set *listeners.Set, from int) (next int) {
			results, next = set.RevertConns(w.past, l, from, results)
			return next
		}); err != nil {
			break
		}
	}
	return results, err
}

// tellReverted adds an event for what went back, and one for each option that
// the kernel did not take back.
func (m *Manager) tellReverted(ctx context.Context, t *try, results []listeners.Result, why string) {
	e := Event{Resource: t.resource(), Type: "option.reverted", Severity: Warning, Attributes: t.attributes()}
	e.Attributes["why"] = why
	e.Message = fmt.Sprintf("%s: %s was tried and went back: %s", t.resource(), t.text(), why)
	var connections uint64
	for _, r := range results {
		if r.Connections == 0 {
			e.Attributes["now."+r.Option.Name] = r.Effective.String()
		}
		connections += r.Connections
	}
	if connections > 0 {
		e.Attributes["connections"] = fmt.Sprint(connections)
	}
	m.tell(ctx, e)
	m.tellTuned(ctx, t.resource(), slices.DeleteFunc(results, took))
}

// revertDue undoes tries whose time has run out, and returns when the next one's
// will. It is the keeper's.
func (m *Manager) revertDue() time.Duration {
	next := time.Hour
	var due []string
	m.mu.Lock()
	for id, t := range m.tries {
		if wait := time.Until(t.deadline); wait > 0 {
			next = min(next, wait)
		} else {
			due = append(due, id)
		}
	}
	m.mu.Unlock()
	for _, id := range due {
		if err := m.end(context.Background(), id, false, "nobody confirmed it in time"); err != nil && m.tryOf(id) != nil {
			next = min(next, retryLeast) // shutting down: then all is closed
		}
	}
	return next
}
