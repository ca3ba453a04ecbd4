package manager

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// maxWishes bounds one Apply.
const maxWishes = 20_000

// A Wish is one listener of a wanted set.
type Wish struct {
	Name string
	Etag string
	Edit func(*Draft) error // changes what is there, or an empty Draft
}

// ApplyOptions say how a wanted set is applied.
type ApplyOptions struct {
	Owner     string // is noted in every listener of the set
	Prune     bool   // delete listeners of the owner that are not in the set
	Force     bool   // take listeners over that another owner has; else those may be wished for as they are only
	Rebind    bool   // let addresses change
	Atomic    bool   // all or nothing
	CheckOnly bool   // say what would be done

	MayPrune func(name string) error // nil: all
}

// An Action is what applying does to one listener.
type Action uint8

// The actions.
const (
	Unchanged Action = iota + 1
	Created
	Updated
	Rebound // changed, with new sockets
	Removed
	NotApplied // it failed
)

// Applied is what was, or would be, done to one listener.
type Applied struct {
	Name   string
	Action Action
	Before *Record // nil: there was none
	Info   *Info   // after; nil of NotApplied
	Notes  []Note
	Err    error // of NotApplied

	step *step // nil: nothing to do
}

// Apply makes listeners be as wished, those that are not there too. A wish that
// fails does not keep the others from being granted, unless the options say so.
// The revision is that of the store afterwards.
func (m *Manager) Apply(ctx context.Context, wishes []Wish, o ApplyOptions) ([]*Applied, int64, error) {
	names, err := m.namesOf(wishes, o)
	if err != nil {
		return nil, 0, err
	}
	release, err := m.change(ctx, names...)
	if err != nil {
		return nil, 0, err
	}
	defer release()
	defer EaseCollector(len(names))()
	all := m.plan(names, wishes, o)
	for _, a := range all {
		if o.CheckOnly && a.Err == nil && a.step != nil {
			a.fail(m.check(a.step))
		}
		if o.Atomic && a.Err != nil {
			return nil, 0, &PartError{a.Name, a.Err}
		}
	}
	if !o.CheckOnly {
		if err := m.applyAll(ctx, all, o.Atomic); err != nil {
			return nil, 0, err
		}
	}
	m.describe(ctx, all, o.CheckOnly)
	return all, m.store.revision.Load(), nil
}

// plan works out what the named listeners take.
func (m *Manager) plan(names []string, wishes []Wish, o ApplyOptions) []*Applied {
	all, made := make([]*Applied, len(names)), make([]Applied, len(names))
	for i, name := range names {
		all[i], made[i].Name = &made[i], name
	}
	Spread(len(wishes), func(some iter.Seq[int]) {
		var draft Draft // one for all: nothing holds on to it
		var steps []step
		for i := range some {
			if len(steps) == 0 {
				steps = make([]step, min(spreadBlock, len(wishes)))
			}
			m.planWish(all[i], wishes[i], o, &draft, &steps[0])
			steps = steps[1:]
		}
	})
	for _, a := range all[len(wishes):] {
		m.planPrune(a, o)
	}
	return all
}

func (a *Applied) fail(err error) {
	if err != nil {
		a.Action, a.Err, a.step = NotApplied, err, nil
	}
}

// namesOf returns the names of all that may change: those wished for, in their
// order, then those that may be pruned.
func (m *Manager) namesOf(wishes []Wish, o ApplyOptions) ([]string, error) {
	var faults []*listeners.Violation
	names := make([]string, 0, len(wishes))
	seen := make(map[string]bool, len(wishes))
	if len(wishes) > maxWishes {
		faults = append(faults, &listeners.Violation{Field: "listeners", Message: fmt.Sprintf("are %d; at most %d", len(wishes), maxWishes)})
	}
	if o.Prune && o.Owner == "" {
		faults = append(faults, &listeners.Violation{Field: "manager", Message: "is empty: it says whose listeners to prune"})
	}
	for i, w := range wishes {
		fault := func(format string) {
			faults = append(faults, &listeners.Violation{Field: fmt.Sprintf("listeners[%d].name", i), Message: fmt.Sprintf(format, w.Name)})
		}
		if !isName(w.Name) {
			fault("%.80q is not a name")
		} else if seen[w.Name] {
			fault("%s is there twice")
		}
		seen[w.Name] = true
		names = append(names, w.Name)
	}
	if o.Prune {
		m.mu.Lock()
		for name, e := range m.names.all() {
			if e.record.Owner == o.Owner && !seen[name] {
				names = append(names, name)
			}
		}
		m.mu.Unlock()
	}
	return names, invalid(faults)
}

// planWish works out what a wish takes, in s if that is anything.
func (m *Manager) planWish(a *Applied, w Wish, o ApplyOptions, d *Draft, s *step) {
	if m.lookup(w.Name) == nil {
		*d = Draft{}
		a.fail(m.planNew(a, w, o, d, s))
		return
	}
	e, before, err := m.current(w.Name, w.Etag)
	a.fail(err)
	if err != nil {
		return
	}
	a.Before = before
	after, changed, err := m.edited(e, before, w.Edit, o.Rebind)
	if others := before.Owner != "" && before.Owner != o.Owner && !o.Force; others {
		a.Action = Unchanged // and it stays the other's
		if changed || errors.Is(err, listeners.OptionNeedsRebind) {
			err = ownedBy(before)
		}
		a.fail(err)
		return
	}
	if err == nil && after.Owner != o.Owner {
		if after.Owner = o.Owner; !changed {
			changed = true
			after.touch(time.Now())
		}
	}
	a.Action = Unchanged
	if changed {
		a.Action = updateKind(before, after)
		*s = step{e: e, before: before, after: after, drain: after.drainTime(SpecDrain)}
		a.step = s
	}
	a.fail(err)
}

// A PartError is why a change of several listeners was not made: one of them.
type PartError struct {
	Listener string
	Err      error
}

// Error returns the words of the part.
func (e *PartError) Error() string { return e.Err.Error() }

// Unwrap gives the error of the part.
func (e *PartError) Unwrap() error { return e.Err }

// ownedBy refuses to change what another owner applied.
func ownedBy(r *Record) error {
	return &listeners.Fault{
		Reason: listeners.ManagerConflict, Message: fmt.Sprintf("%s was applied by %s", r.Name, r.Owner),
		Fix: "change it there, or set force to take it over", Meta: map[string]string{"manager": r.Owner},
	}
}

// planNew works out what a wish takes for a listener that is not there.
func (m *Manager) planNew(a *Applied, w Wish, o ApplyOptions, d *Draft, s *step) error {
	if err := w.Edit(d); err != nil {
		return err
	}
	record := newRecord(w.Name)
	record.Owner = o.Owner
	if _, err := record.apply(*d, record.Created); err != nil {
		return err
	}
	a.Action = Created
	*s = step{e: newEntry(), before: &nothing, after: record}
	a.step = s
	return nil
}

func (m *Manager) planPrune(a *Applied, o ApplyOptions) {
	e, before, err := m.current(a.Name, "")
	if err != nil || before.Owner != o.Owner { // gone, or another's, meanwhile
		a.Action = Unchanged
		return
	}
	a.Before, a.Action = before, Removed
	a.step = &step{e: e, before: before, drain: before.drainTime(SpecDrain)}
	if o.MayPrune != nil {
		a.fail(o.MayPrune(a.Name))
	}
}

func updateKind(before, after *Record) Action {
	if len(after.Spec.Beyond(before.Spec)) > 0 || len(after.Spec.Rebinds(before.Spec)) > 0 {
		return Rebound
	}
	return Updated
}

// applyAll makes the change and tells of it.
func (m *Manager) applyAll(ctx context.Context, all []*Applied, atomic bool) error {
	steps := make([]*step, 0, len(all))
	for _, a := range all {
		if a.step != nil {
			steps = append(steps, a.step)
		}
	}
	if err := m.commit(ctx, steps, atomic); err != nil {
		for _, s := range steps {
			if s.err != nil && errors.Is(err, s.err) {
				return &PartError{s.name(), err}
			}
		}
		return err
	}
	for _, a := range all {
		if a.step == nil {
			continue
		}
		a.Notes = a.step.notes
		a.fail(a.step.err)
	}
	return nil
}

// describe says what has become of each, and tells the watchers. It reads the
// kernel for a bounded number in one turn.
func (m *Manager) describe(ctx context.Context, all []*Applied, checkOnly bool) {
	entries, changed := make([]*entry, 0, len(all)), make([]*Applied, 0, len(all))
	for _, a := range all {
		s := a.step
		switch {
		case s == nil && a.Before != nil:
			a.Info = &Info{Record: a.Before}
		case s == nil:
		case checkOnly && s.after != nil:
			a.Info = &Info{Record: s.after}
		case checkOnly || s.after == nil && s.live == nil:
			a.Info = &Info{Record: s.before, State: Stopped}
		default:
			entries, changed = append(entries, s.e), append(changed, a)
		}
		if s != nil && s.after == nil && !checkOnly {
			m.forget(ctx, s)
		}
	}
	ready := make(chan []Info, 2) // the loop reads the next while watchers are told of these
	go func() {
		defer close(ready)
		for chunk := range slices.Chunk(entries, listBudget) {
			ready <- m.infos(context.Background(), chunk, false)
		}
	}()
	at := 0
	for infos := range ready {
		for i := range infos {
			changed[at].Info = &infos[i]
			if s := changed[at].step; s.after != nil {
				m.publish(ctx, s.event(), &infos[i])
				m.tellBound(ctx, s, &infos[i])
			}
			at++
		}
	}
}
