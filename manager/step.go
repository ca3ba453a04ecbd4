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
	e       *entry
	before  *Record // Generation 0: it is made
	after   *Record // nil: it is deleted
	drain   time.Duration
	heals   bool // sockets were shut from outside: new ones take their place
	empty   bool // it is paused, and its connections are let go
	notes   []Note
	err     error                      // why it was not done
	program *listeners.Exec            // as the daemon's configuration has it; nil: not an exec
	tried   map[string]listeners.Value // of its options, and not changed by the step

	running bool                // it was bound when the change began
	revived bool                // it was about to be closed
	closed  bool                // it had no connection left when it was stopped
	shares  []listeners.Share   // new sockets in place of old ones
	shared  bool                // and that is not settled or undone yet
	opened  *listeners.Listener // its new sockets; nil once they are on the loop
	live    *listeners.Listener // on the loop
	undo    func()              // on the loop; nil: nothing to undo
	was     *Info               // before it is let go; nil: nobody asks
}

// nothing is before a listener that is made. Not to be changed.
var nothing Record

// name is that of the listener.
func (s *step) name() string {
	if s.after != nil {
		return s.after.Name
	}
	return s.before.Name
}

// runs reports whether the listener shall be bound after the step.
func (s *step) runs() bool { return s.after != nil && s.after.Desired != WantStopped }

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
func (s *step) prepare(kept *listeners.Kept) error {
	if !s.runs() {
		return nil
	}
	spec := s.spec()
	if err := s.runnable(); err != nil {
		return err
	}
	if s.running {
		spec = s.beyond(spec)
	}
	opened, err := kept.Open(s.after.Name, spec, s.shares...)
	if err != nil {
		return violated(err)
	}
	s.opened = opened
	if !s.running {
		s.notes = notesOf(opened)
	}
	return nil
}

// runnable asks whether what a handler needs is there, before something is bound
// for it. What runs already is not asked: a pause must not fail because of that.
func (s *step) runnable() error {
	r, ok := s.after.Spec.Handler.(listeners.Runner)
	if s.program != nil {
		r = s.program
	}
	if !ok || s.running && s.before.Spec.SameHandler(s.after.Spec) {
		return nil
	}
	return violated(r.Runnable())
}

// claims reports whether there may be something to claim.
func (s *step) claims() bool {
	return !s.running || s.heals || s.before.Desired != WantRunning || len(s.spec().Rebinds(s.before.Spec)) > 0
}

// claim is called on the loop, first of all: it takes back a stop that has not
// closed the sockets yet, and marks the sockets that are to be replaced.
func (s *step) claim() (err error) {
	if !s.running && s.live != nil && s.live.Revive() {
		s.running, s.revived, s.shared = true, true, true
	}
	if s.running {
		s.shares, err = s.live.Share(s.spec(), s.after.pauseMode() != listeners.Refuse)
		s.shared = s.shared || len(s.shares) > 0
	}
	return err
}

// unclaim is called on the loop, and undoes that.
func (s *step) unclaim() {
	s.live.Unshare()
	if s.revived {
		s.live.Stop(s.before.drainTime(SpecDrain))
	}
	s.shared = false
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
		return pauseTo(l, s.after.pauseMode())
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
	paused := s.live.Paused()
	s.undo = func() {
		_ = pauseTo(s.live, paused) // what cannot be is logged there
		untune()
		s.live.Unshare()
		s.live.Settle(before) // which lets the new sockets go
		s.unclaim()
	}
	return pauseTo(s.live, s.after.pauseMode())
}

// pauseTo makes clients of a listener meet what they shall.
func pauseTo(l *listeners.Listener, mode listeners.PauseMode) error {
	if mode == listeners.NotPaused {
		return l.Resume()
	}
	return l.Pause(mode)
}

// settles reports whether there is something to settle: nothing is when it just
// began to run.
func (s *step) settles() bool { return !s.runs() || s.running || s.empty }

// settle is called on the loop.
func (s *step) settle() {
	switch {
	case !s.runs() && s.live != nil:
		if s.was != nil {
			s.was.live(s.live.Status(false))
		}
		s.live.Stop(s.drain)
		s.closed = s.live.State() == listeners.Closed
	case s.runs() && s.running:
		s.live.Settle(s.spec())
		s.shared = false
	}
	if s.empty {
		s.live.Drain(s.drain)
	}
}

// stepsPerTurn is how many listeners one turn of the loop changes.
const stepsPerTurn = 32

// commit makes a change of many listeners, whose names are locked. With atomic
// it is made as a whole or not at all; otherwise a step that fails says so in
// err and does not keep the others from being made. The error is one that kept
// all from being made.
func (m *Manager) commit(ctx context.Context, steps []*step, atomic bool) error {
	m.settleKept(ctx) // an address that was let go is free once its copy is closed
	defer m.settleKept(ctx)
	m.prepareAll(ctx, steps)
	defer m.abandonAll(steps)
	if err := firstError(steps); err != nil && atomic {
		return err
	}
	err := m.eachTurn(ctx, withoutThose(steps, func(s *step) bool { return !s.runs() }), func(s *step) { s.err = s.engage(m.set) })
	if err == nil && atomic {
		err = firstError(steps)
	}
	if err == nil {
		m.undoAll(withoutThose(steps, func(s *step) bool { return s.err == nil }))
		err = m.store.commit(changesOf(steps)...)
	}
	if err != nil {
		m.undoAll(steps)
		return err
	}
	m.keepAll(steps)
	lets := withoutThose(steps, func(s *step) bool { return !s.settles() })
	err = m.eachTurn(context.WithoutCancel(ctx), lets, (*step).settle) // fails only when all is closed
	_ = m.settled(ctx)                                                 // else it will be a moment later
	m.settleTries(ctx, steps)
	return err
}

// withoutThose returns the steps of which it is not so.
func withoutThose(steps []*step, so func(*step) bool) []*step {
	if !slices.ContainsFunc(steps, so) {
		return steps
	}
	return slices.DeleteFunc(slices.Clone(steps), so)
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

// undoAll undoes what was engaged, whatever has become of the caller.
func (m *Manager) undoAll(steps []*step) {
	m.mu.Lock()
	for _, s := range steps {
		if s.undo != nil && !s.running { // the keeper hears when it is closed
			m.attached[s.live] = true
		}
	}
	m.mu.Unlock()
	m.always(steps, func(s *step) bool { return s.undo != nil }, func(s *step) { s.undo(); s.undo = nil })
}

// abandonAll closes what was opened and marked for nothing.
func (m *Manager) abandonAll(steps []*step) {
	for _, s := range steps {
		if s.opened != nil {
			s.opened.Close()
			s.opened = nil
		}
	}
	m.always(steps, func(s *step) bool { return s.shared }, (*step).unclaim)
}

// always calls f on the loop for those steps of which it is so. When the loop
// has ended, all is closed.
func (m *Manager) always(steps []*step, so func(*step) bool, f func(*step)) {
	some := withoutThose(steps, func(s *step) bool { return !so(s) })
	for chunk := range slices.Chunk(some, stepsPerTurn) {
		_ = m.on(context.Background(), func() error {
			for _, s := range chunk {
				f(s)
			}
			return nil
		})
	}
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
func (m *Manager) keepAll(steps []*step) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var made []*entry
	defer func() { m.insertLocked(made...) }()
	now := time.Now()
	for _, s := range steps {
		if s.err != nil {
			continue
		}
		e := s.e
		if s.after != nil {
			e.record = s.after
		}
		if s.before.Generation == 0 {
			made = append(made, e)
		}
		e.failure, e.retry, e.backoff = nil, time.Time{}, 0
		m.tendLocked(e)
		switch {
		case s.runs() && !s.running:
			e.live, e.stopping, e.started = s.live, false, now
			m.attached[s.live] = true
			m.fresh = append(m.fresh, e)
		case s.runs():
			e.stopping = false // it was revived, perhaps
		default:
			e.stopping = e.live != nil
			e.deleting = s.after == nil
			s.live = e.live // nil if it has closed meanwhile, and the keeper thought nothing of it
		}
	}
}
