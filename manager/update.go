package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// Update changes what is wanted of a listener: edit is given a Draft of what is
// wanted now. A listener that runs is changed where it stands; addresses may
// change only if rebind is set. When any part fails, nothing has changed. With
// checkOnly it returns what would be, and changes nothing.
func (m *Manager) Update(ctx context.Context, name, etag string, edit func(*Draft) error, rebind, checkOnly bool) (Info, []Note, error) {
	release, err := m.change(ctx, name)
	if err != nil {
		return Info{}, nil, err
	}
	defer release()
	e, record, err := m.current(name, etag)
	if err != nil {
		return Info{}, nil, err
	}
	old, draft := record, record.draft()
	if err := edit(&draft); err != nil {
		return Info{}, nil, err
	}
	changed, err := record.apply(draft, time.Now())
	if err != nil {
		return Info{}, nil, err
	}
	running := m.isRunning(e)
	if running && !record.Stopped && !rebind && !slices.Equal(old.Spec.Listen, record.Spec.Listen) {
		return Info{}, nil, &listeners.Fault{
			Reason: listeners.OptionNeedsRebind, Message: name + ": new addresses take new sockets, and that was not allowed",
			Fix: "set allow_rebind: addresses that stay keep their sockets",
		}
	}
	if checkOnly || !changed {
		info := m.info(e)
		info.Record = record
		return info, nil, nil
	}
	notes, err := m.update(ctx, e, old, &record, running)
	if err != nil {
		return Info{}, nil, err
	}
	return m.told(Modified, e), notes, nil
}

// update makes the change: what may be refused first, then the store, then what
// cannot be undone.
func (m *Manager) update(ctx context.Context, e *entry, old Record, record *Record, running bool) (notes []Note, err error) {
	switch {
	case running && record.Stopped, !running && record.Stopped:
		if err := m.store.save(record); err != nil {
			return nil, err
		}
		if running {
			m.stop(e, DefaultDrain)
		}
	case running:
		notes, err = m.updateLive(ctx, e, old, record)
	default:
		if notes, err = m.run(ctx, e, *record); err != nil {
			return nil, err
		}
		if err = m.store.save(record); err != nil {
			m.undoRun(e)
		}
	}
	if err == nil {
		m.with(e, func(e *entry) { e.record = *record })
	}
	return notes, err
}

// updateLive changes a listener that runs.
func (m *Manager) updateLive(ctx context.Context, e *entry, old Record, record *Record) (notes []Note, err error) {
	fresh := record.Spec
	fresh.Listen = nil
	for _, a := range record.Spec.Listen {
		if !slices.Contains(old.Spec.Listen, a) {
			fresh.Listen = append(fresh.Listen, a)
		}
	}
	opened, err := listeners.Open(record.Name, fresh) // of no address: an empty one
	if err != nil {
		return nil, m.namingOurs(err)
	}
	defer func() {
		if err != nil {
			opened.Close()
		}
	}()
	var undo func()
	if err := m.on(ctx, func() error { notes, undo, err = tuneTo(e.live, record.Spec); return err }); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // from here on it is all or, by undoing, nothing
	if err := m.store.save(record); err != nil {
		_ = m.on(ctx, func() error { undo(); return nil })
		return nil, err
	}
	err = m.on(ctx, func() error { return e.live.Replace(record.Spec, opened) })
	if err != nil {
		_ = m.on(ctx, func() error { undo(); return nil })
		return nil, errors.Join(err, m.store.save(&old))
	}
	return notes, nil
}

// tuneTo gives a running listener the options of spec. When one is refused, all
// are as before; undo makes that so later.
func tuneTo(l *listeners.Listener, spec listeners.Spec) (notes []Note, undo func(), err error) {
	before := l.Spec().Options
	var done []*listeners.Option
	undo = func() {
		for _, o := range done {
			l.Tune(o, before[o.Name])
		}
	}
	names := maps.Clone(before)
	maps.Copy(names, spec.Options)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before[name] == spec.Options[name] {
			continue
		}
		o := listeners.LookupOption(name)
		r := l.Tune(o, spec.Options[name])
		switch r.Outcome {
		case listeners.Failed, listeners.NeedsRebind:
			undo()
			return nil, nil, refused(l.Name, r)
		case listeners.Clamped:
			notes = append(notes, clampNote(r))
		default: // it is as asked
		}
		done = append(done, o)
	}
	return notes, undo, nil
}

// refused is the Fault of an option that could not be changed.
func refused(name string, r listeners.Result) error {
	f := &listeners.Fault{
		Reason: listeners.SpecInvalid, Message: fmt.Sprintf("%s: %s=%v: %s", name, r.Option.Name, r.Requested, r.Message),
		Meta: map[string]string{"option": r.Option.Name},
	}
	if r.Outcome == listeners.NeedsRebind {
		f.Reason = listeners.OptionNeedsRebind
	}
	if r.Errno != "" {
		f.Meta["errno"] = r.Errno
	}
	return f
}
