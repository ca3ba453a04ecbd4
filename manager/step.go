package manager

import (
	"context"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// A step is one listener's part of a change: from what was wanted to what is
// wanted now.
//
//	prepare  off the loop: what may wait or be refused (bind)
//	engage   on the loop: what may be refused, and can be undone (attach, tune)
//	-------  the store: all steps in one transaction
//	settle   on the loop: what is never refused and cannot be undone (let go)
//
// So whatever fails, fails before anything old is let go, and is undone.
type step struct {
	e      *entry
	before Record  // Generation 0: it is made
	after  *Record // nil: it is deleted
	drain  time.Duration
	notes  []Note
	err    error                      // why it was not done
	tried  map[string]listeners.Value // of its options, and not changed by the step

	running bool                // it was bound when the change began
	opened  *listeners.Listener // its new sockets; nil once they are on the loop
	live    *listeners.Listener // on the loop
	undo    func()              // on the loop; nil: nothing to undo
}

// name is that of the listener.
func (s *step) name() string {
	if s.after != nil {
		return s.after.Name
	}
	return s.before.Name
}

// runs reports whether the listener shall be bound after the step.
func (s *step) runs() bool { return s.after != nil && !s.after.Stopped }

// event is what watchers are told of a step that was made.
func (s *step) event() ChangeType {
	switch {
	case s.before.Generation == 0:
		return Added
	case s.after == nil:
		return Deleted
	case s.after.Generation != s.before.Generation:
		return Modified
	default:
		return StatusChanged
	}
}

// spec is what the sockets shall have after the step: what is wanted, and what
// is tried.
func (s *step) spec() listeners.Spec {
	spec := s.after.Spec
	for name, v := range s.tried {
		if s.running && spec.Options[name] == s.before.Spec.Options[name] {
			spec = spec.With(name, v)
		}
	}
	return spec
}

// prepare binds what is not bound yet. A change of a listener that runs keeps
// the sockets whose addresses stay.
func (s *step) prepare() error {
	if !s.runs() {
		return nil
	}
	spec := s.spec()
	if s.running {
		spec.Listen = spec.Beyond(s.before.Spec)
	}
	opened, err := listeners.Open(s.after.Name, spec)
	if err != nil {
		return err
	}
	s.opened = opened
	if !s.running {
		s.notes = notesOf(opened)
	}
	return nil
}

// engage is called on the loop.
func (s *step) engage(set *listeners.Set) error {
	switch {
	case !s.runs():
		return nil
	case !s.running:
		l := s.opened
		if err := l.Attach(set, s.e.stats); err != nil {
			return err
		}
		s.live, s.opened = l, nil
		s.undo = func() { l.Stop(0) }
		return nil
	}
	before := s.live.Spec()
	notes, untune, err := tuneTo(s.live, s.spec())
	if err != nil {
		return err
	}
	if err := s.live.Extend(s.opened); err != nil {
		untune()
		return err
	}
	s.notes, s.opened = notes, nil
	s.undo = func() {
		untune()
		s.live.Settle(before) // which lets the new sockets go
	}
	return nil
}

// settle is called on the loop.
func (s *step) settle() {
	switch {
	case s.runs() && s.running:
		s.live.Settle(s.spec())
	case !s.runs() && s.live != nil:
		s.live.Stop(s.drain)
	}
}

// abandon closes what was opened and is not on the loop.
func (s *step) abandon() {
	if s.opened != nil {
		s.opened.Close()
		s.opened = nil
	}
}

// stepsPerTurn is how many listeners one turn of the loop changes.
const stepsPerTurn = 32

// commit makes a change of many listeners, whose names are locked. With atomic
// it is made as a whole or not at all; otherwise a step that fails says so in
// err and does not keep the others from being made. The error is one that kept
// all from being made.
func (m *Manager) commit(ctx context.Context, steps []*step, atomic bool) error {
	for _, s := range steps {
		m.with(s.e, func(e *entry) { s.live, s.running = e.live, e.live != nil && !e.stopping })
		s.tried = m.triedOf(s.name())
		if s.err = s.prepare(); s.err != nil {
			s.err = m.namingOurs(s.err)
		}
	}
	defer func() {
		for _, s := range steps {
			s.abandon()
		}
	}()
	if err := firstError(steps); err != nil && atomic {
		return err
	}
	if err := m.engageAll(ctx, steps, atomic); err != nil {
		return m.undoAll(steps, err)
	}
	if err := m.store.commit(changesOf(steps)...); err != nil {
		return m.undoAll(steps, err)
	}
	m.keepAll(steps, causeOf(ctx))
	err := m.eachTurn(context.WithoutCancel(ctx), steps, (*step).settle) // fails only when all is closed
	m.settleTries(ctx, steps)
	return err
}

// engageAll puts on the loop what may be refused.
func (m *Manager) engageAll(ctx context.Context, steps []*step, atomic bool) error {
	err := m.eachTurn(ctx, steps, func(s *step) { s.err = s.engage(m.set) })
	if err == nil && atomic {
		err = firstError(steps)
	}
	return err
}

// eachTurn calls f on the loop for every step that has not failed, a bounded
// number in a turn.
func (m *Manager) eachTurn(ctx context.Context, steps []*step, f func(*step)) error {
	for chunk := range slices.Chunk(steps, stepsPerTurn) {
		err := m.on(ctx, func() error {
			for _, s := range chunk {
				if s.err == nil {
					f(s)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// undoAll undoes what was engaged, whatever has become of the caller, and
// returns why.
func (m *Manager) undoAll(steps []*step, why error) error {
	m.mu.Lock()
	for _, s := range steps {
		if s.undo != nil && !s.running { // the keeper hears when it is closed
			m.attached[s.live] = true
		}
	}
	m.mu.Unlock()
	_ = m.eachTurn(context.Background(), steps, func(s *step) { // when the loop has ended all is closed
		if s.undo != nil {
			s.undo()
		}
	})
	return why
}

func firstError(steps []*step) error {
	for _, s := range steps {
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

func changesOf(steps []*step) []change {
	var changes []change
	for _, s := range steps {
		if s.err == nil && (s.after == nil || s.after.Generation != s.before.Generation) {
			changes = append(changes, change{name: s.name(), put: s.after})
		}
	}
	return changes
}

// keepAll notes what the store has taken.
func (m *Manager) keepAll(steps []*step, cause Cause) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range steps {
		if s.err != nil {
			continue
		}
		e := s.e
		if s.after != nil {
			e.record = *s.after
		}
		if s.before.Generation == 0 {
			m.insertLocked(e)
		}
		e.failure, e.retry, e.backoff = nil, time.Time{}, 0
		switch {
		case s.runs() && !s.running:
			e.live, e.stopping, e.started = s.live, false, time.Now()
			m.attached[s.live] = true
		case !s.runs():
			e.stopping, e.cause = e.live != nil, cause
			e.deleting = s.after == nil
			s.live = e.live // nil if it has closed meanwhile, and the keeper thought nothing of it
		}
	}
}
