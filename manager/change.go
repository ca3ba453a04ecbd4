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

// A Note is something that a client should know of a change that was made.
type Note struct {
	Code    string // CLAMPED
	Field   string
	Message string
}

// Create makes a listener and, unless it shall be stopped, runs it. An empty
// name lets the manager choose. With checkOnly it finds out whether that would
// work, and changes nothing.
func (m *Manager) Create(ctx context.Context, name string, d Draft, checkOnly bool) (Info, []Note, error) {
	uid := newUID()
	if name == "" {
		name = "listener-" + uid[:8]
	}
	now := time.Now()
	record := Record{Name: name, UID: uid, Created: now}
	_, err := record.apply(d, now)
	if err := joinInvalid(checkName(name), err); err != nil {
		return Info{}, nil, err
	}
	release, err := m.change(ctx, name)
	if err != nil {
		return Info{}, nil, err
	}
	defer release()
	if _, err := m.entry(name); err == nil {
		return Info{}, nil, &listeners.Fault{
			Reason: listeners.ListenerAlreadyExists, Message: fmt.Sprintf("there is a listener %q already", name),
			Fix: "sockctl inspect " + name + " shows it", Meta: map[string]string{"listener": name},
		}
	}
	if checkOnly {
		if !record.Stopped {
			err = listeners.Check(name, record.Spec)
		}
		return Info{Record: record, State: Stopped}, nil, err
	}
	e := &entry{record: record, stats: &listeners.Stats{}}
	notes, err := m.run(ctx, e, record)
	if err != nil {
		return Info{}, nil, err
	}
	if err := m.store.save(&record); err != nil {
		m.undoRun(e)
		return Info{}, nil, err
	}
	e.record = record
	m.insert(e)
	return m.told(Added, e), notes, nil
}

// run opens the listener of a record that shall run, and puts it on the loop.
func (m *Manager) run(ctx context.Context, e *entry, r Record) ([]Note, error) {
	if r.Stopped {
		return nil, nil
	}
	l, err := listeners.Open(r.Name, r.Spec)
	if err != nil {
		return nil, m.namingOurs(err)
	}
	notes := notesOf(l)
	if err := m.on(ctx, func() error { return l.Attach(m.set, e.stats) }); err != nil {
		l.Close()
		return nil, err
	}
	m.with(e, func(e *entry) {
		e.live, e.stopping, e.failure = l, false, nil
		e.started, e.retry, e.backoff = time.Now(), time.Time{}, 0
		m.attached[l] = true
	})
	return notes, nil
}

// undoRun takes a listener off the loop again that was just put there.
func (m *Manager) undoRun(e *entry) {
	var l *listeners.Listener
	m.with(e, func(e *entry) { l, e.live = e.live, nil })
	if l != nil {
		_ = m.loop.Post(func() { l.Stop(0) }) // fails only when all is closed anyway
	}
}

// namingOurs says which listener it is, when an address is held by ourselves.
func (m *Manager) namingOurs(err error) error {
	var f *listeners.Fault
	if !errors.As(err, &f) || f.Meta["holder_pid"] != ownPid {
		return err
	}
	m.mu.Lock()
	var lives []*listeners.Listener
	for l := range m.attached {
		lives = append(lives, l)
	}
	m.mu.Unlock()
	_ = m.on(context.Background(), func() error { // what cannot be told is left out
		for _, l := range lives {
			if l.Holds(f.Meta["holder_inode"]) {
				f.Message += ", for listener " + l.Name
				f.Meta["holder_listener"] = l.Name
			}
		}
		return nil
	})
	return err
}

func notesOf(l *listeners.Listener) []Note {
	var notes []Note
	for _, r := range l.Notes() {
		notes = append(notes, clampNote(r))
	}
	return notes
}

func clampNote(r listeners.Result) Note {
	return Note{
		Code: "CLAMPED", Field: "spec.options." + r.Option.Name,
		Message: fmt.Sprintf("%s is %v, not %v: %s", r.Option.Name, r.Effective, r.Requested, r.Message),
	}
}

// joinInvalid makes one Invalid of several.
func joinInvalid(errs ...error) error {
	var all []*listeners.Violation
	for _, err := range errs {
		if one, ok := errors.AsType[*Invalid](err); ok {
			all = append(all, one.Violations...)
		} else if err != nil {
			return err
		}
	}
	return invalid(all)
}

// Start runs a listener. One that runs already stays as it is.
func (m *Manager) Start(ctx context.Context, name, etag string) (Info, error) {
	return m.setStopped(ctx, name, etag, false, 0)
}

// Stop closes the sockets of a listener, gives its connections the time to
// finish, and keeps it defined. One that is stopped already stays as it is;
// one that drains drains no longer than said now.
func (m *Manager) Stop(ctx context.Context, name, etag string, drain time.Duration) (Info, error) {
	return m.setStopped(ctx, name, etag, true, drain)
}

func (m *Manager) setStopped(ctx context.Context, name, etag string, stopped bool, drain time.Duration) (Info, error) {
	release, err := m.change(ctx, name)
	if err != nil {
		return Info{}, err
	}
	defer release()
	e, record, err := m.current(name, etag)
	if err != nil {
		return Info{}, err
	}
	changed := record.Stopped != stopped
	record.Stopped = stopped
	if !stopped && !m.isRunning(e) {
		if _, err := m.run(ctx, e, record); err != nil {
			return Info{}, err
		}
		if err := m.saveIf(changed, &record); err != nil {
			m.undoRun(e)
			return Info{}, err
		}
		m.with(e, func(e *entry) { e.record = record })
		return m.told(StatusChanged, e), nil
	}
	if err := m.saveIf(changed, &record); err != nil {
		return Info{}, err
	}
	m.with(e, func(e *entry) { e.record = record })
	if stopped {
		m.stop(e, drain)
	}
	if changed {
		return m.told(Modified, e), nil
	}
	return m.info(e), nil
}

func (m *Manager) saveIf(changed bool, r *Record) error {
	if !changed {
		return nil
	}
	r.Generation++
	r.Updated = time.Now()
	return m.store.save(r)
}

// isRunning reports whether a listener is bound.
func (m *Manager) isRunning(e *entry) (running bool) {
	m.with(e, func(e *entry) { running = e.live != nil && !e.stopping })
	return running
}

// stop takes a listener off the loop, as gently as drain says. The keeper hears
// when it is closed.
func (m *Manager) stop(e *entry, drain time.Duration) {
	var l *listeners.Listener
	m.with(e, func(e *entry) { l, e.stopping, e.failure, e.retry = e.live, true, nil, time.Time{} })
	if l != nil {
		_ = m.on(context.Background(), func() error { l.Stop(drain); return nil }) // fails only when all is closed anyway
	}
}

// Delete stops a listener as Stop does, and forgets it: at once in the store,
// here when the last connection has ended.
func (m *Manager) Delete(ctx context.Context, name, etag string, drain time.Duration, checkOnly bool) (Info, error) {
	release, err := m.change(ctx, name)
	if err != nil {
		return Info{}, err
	}
	defer release()
	e, err := m.entry(name)
	if err != nil {
		return Info{}, err
	}
	deleting, idle := false, false
	m.with(e, func(e *entry) { deleting, idle = e.deleting, e.live == nil })
	if !deleting {
		if _, _, err := m.current(name, etag); err != nil || checkOnly {
			return m.info(e), err
		}
		if err := m.store.remove(name); err != nil {
			return Info{}, err
		}
		m.with(e, func(e *entry) { e.deleting = true })
	}
	m.stop(e, drain)
	info := m.info(e)
	if idle { // otherwise the keeper hears when it is closed
		m.drop(name)
		m.ring.publish(Deleted, info)
	}
	return info, nil
}

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
