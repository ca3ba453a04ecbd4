package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// Create makes a listener and, unless it shall be stopped, runs it. An empty
// name lets the manager choose. With checkOnly it finds out whether that would
// work, and changes nothing.
func (m *Manager) Create(ctx context.Context, name string, d Draft, checkOnly bool) (Info, []Note, error) {
	record := newRecord(name)
	_, err := record.apply(d, record.Created)
	if err := joinInvalid(checkName(record.Name), err); err != nil {
		return Info{}, nil, err
	}
	release, err := m.change(ctx, record.Name)
	if err != nil {
		return Info{}, nil, err
	}
	defer release()
	if m.lookup(record.Name) != nil {
		return Info{}, nil, &listeners.Fault{
			Reason: listeners.ListenerAlreadyExists, Message: fmt.Sprintf("there is a listener %q already", record.Name),
			Fix: "sockctl inspect " + record.Name, Meta: map[string]string{"listener": record.Name},
		}
	}
	s := &step{e: newEntry(), before: &nothing, after: record}
	if checkOnly {
		return Info{Record: record, State: Stopped}, nil, m.check(s)
	}
	info, err := m.commitOne(ctx, s)
	return info, s.notes, err
}

// check finds out whether a step would work.
func (m *Manager) check(s *step) error {
	if err := m.allows(s); err != nil || !s.runs() {
		return err
	}
	spec := s.after.Spec
	s.running = m.isRunning(s.e)
	if err := s.runnable(); err != nil {
		return err
	}
	if s.running {
		spec = s.beyond(spec)
		for _, o := range changedOptions(s.before.Spec, s.after.Spec) {
			if r := listeners.Rehearse(s.after.Spec, o, spec.Options[o.Name]); r.Outcome == listeners.Failed {
				return refused(s.after.Name, r)
			}
		}
	}
	return m.namingOurs(violated(m.kept.Check(s.after.Name, spec)))
}

// commitOne makes a change of one listener that stays, and tells of it.
func (m *Manager) commitOne(ctx context.Context, s *step) (Info, error) {
	if err := m.commit(ctx, []*step{s}, true); err != nil {
		return Info{}, err
	}
	if s.event() == StatusChanged && s.empty { // the keeper tells of it
		return m.infos(context.WithoutCancel(ctx), []*entry{s.e}, true)[0], nil
	}
	info := m.told(ctx, s.event(), s.e)
	m.tellBound(ctx, s, &info)
	return info, nil
}

// tellBound adds the event of a listener that was started.
func (m *Manager) tellBound(ctx context.Context, s *step, info *Info) {
	if s.event() == Modified && s.runs() && !s.running {
		m.tell(ctx, eventOf(StatusChanged, info))
	}
}

// Start runs a listener, and ends a pause or a drain of it. One that runs
// already stays as it is.
func (m *Manager) Start(ctx context.Context, name, etag string) (Info, error) {
	return m.want(ctx, name, etag, func(s *step) error {
		s.after.Desired, s.after.ResumeAt = WantRunning, time.Time{}
		return nil
	})
}

// Stop closes the sockets of a listener, gives its connections the time to
// finish, SpecDrain for what its spec says, and keeps it defined. One that is stopped
// already stays as it is; one that drains drains no longer than said now.
func (m *Manager) Stop(ctx context.Context, name, etag string, drain time.Duration) (Info, error) {
	return m.want(ctx, name, etag, func(s *step) error {
		s.after.Desired, s.after.ResumeAt = WantStopped, time.Time{}
		s.drain = s.before.drainTime(drain)
		return nil
	})
}

// want changes what one listener shall be doing. Where that is so already,
// nothing is done.
func (m *Manager) want(ctx context.Context, name, etag string, edit func(*step) error) (Info, error) {
	release, err := m.change(ctx, name)
	if err != nil {
		return Info{}, err
	}
	defer release()
	e, before, err := m.current(name, etag)
	if err != nil {
		return Info{}, err
	}
	m.tellBefore(ctx, e)
	after := new(Record)
	*after = *before
	s := &step{e: e, before: before, after: after}
	if err := edit(s); err != nil {
		return Info{}, err
	}
	if after.Desired != before.Desired || after.Spec.PauseMode != before.Spec.PauseMode || !after.ResumeAt.Equal(before.ResumeAt) {
		after.touch(time.Now())
	} else if live := m.liveOf(e); !s.empty && (s.runs() && m.isRunning(e) || !s.runs() && live == nil) {
		return m.info(e), nil
	}
	return m.commitOne(ctx, s)
}

// isRunning reports whether a listener is bound.
func (m *Manager) isRunning(e *entry) (running bool) {
	m.with(e, func(e *entry) { running = e.live != nil && !e.stopping })
	return running
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
	if m.isDeleting(e) { // once more: sooner, perhaps
		m.tellBefore(ctx, e)
		if l := m.liveOf(e); l != nil && !checkOnly {
			err = m.on(ctx, func() error { l.Stop(e.record.drainTime(drain)); return nil })
		}
		return m.info(e), err
	}
	_, before, err := m.current(name, etag)
	if err != nil || checkOnly {
		return m.info(e), err
	}
	s := &step{e: e, before: before, drain: before.drainTime(drain)}
	tell := beforeOf(ctx)
	if tell != nil {
		var g glance
		m.known(&g, []*entry{e})
		s.was = &g.infos[0]
	}
	if err := m.commit(ctx, []*step{s}, true); err != nil {
		return Info{}, err
	}
	if tell != nil {
		tell(s.was)
	}
	return m.forget(ctx, s), nil
}

// forget drops a deleted listener that has nothing any more: who deleted it may make
// another of that name at once. Of others the keeper hears when they are closed.
func (m *Manager) forget(ctx context.Context, s *step) Info {
	switch {
	case s.live == nil:
		info := m.lastInfo(s.e)
		m.drop(s.before.Name)
		m.publish(ctx, Deleted, info)
		return *info
	case s.closed:
		info := m.lastInfo(s.e)
		m.closed(s.live, info)
		return *info
	}
	return m.info(s.e)
}

func (m *Manager) isDeleting(e *entry) (deleting bool) {
	m.with(e, func(e *entry) { deleting = e.deleting })
	return deleting
}

// namingOurs says which listener it is, when an address is held by ourselves.
func (m *Manager) namingOurs(err error) error {
	f, ok := errors.AsType[*listeners.Fault](err)
	if !ok || f.Meta["holder_pid"] != ownPid {
		return err
	}
	m.mu.Lock()
	var lives []*listeners.Listener
	for l := range m.attached {
		lives = append(lives, l)
	}
	m.mu.Unlock()
	for chunk := range slices.Chunk(lives, listBudget) {
		_ = m.on(context.Background(), func() error { // what cannot be told is left out
			for _, l := range chunk {
				if l.Holds(f.Meta["holder_inode"]) {
					f.Message += ", for listener " + l.Name
					f.Meta["holder_listener"] = l.Name
				}
			}
			return nil
		})
	}
	return err
}

// beyond is what of spec a listener that runs does not have yet: addresses, and
// certificates if it shall have others. Those that it has are not read again: a
// pause must not fail because of them.
func (s *step) beyond(spec listeners.Spec) listeners.Spec {
	spec.Listen = spec.Beyond(s.before.Spec)
	if s.after.Spec.SameTLS(s.before.Spec) {
		spec.TLS = nil
	}
	return spec
}

// violated makes one Invalid of the violations in err, if that is what it is.
func violated(err error) error {
	if faults := listeners.Violations(err); len(faults) > 0 {
		return invalid(faults)
	}
	return err
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
	e, before, err := m.current(name, etag)
	if err != nil {
		return Info{}, nil, err
	}
	m.tellBefore(ctx, e)
	after, changed, err := m.edited(e, before, edit, rebind)
	if err != nil {
		return Info{}, nil, err
	}
	s := &step{e: e, before: before, after: after, drain: after.drainTime(SpecDrain)}
	if checkOnly && changed {
		err = m.check(s)
	}
	if checkOnly || !changed {
		info := m.info(e)
		info.Record = after
		return info, nil, err
	}
	info, err := m.commitOne(ctx, s)
	return info, s.notes, err
}

// edited returns a record as edit would have it.
func (m *Manager) edited(e *entry, before *Record, edit func(*Draft) error, rebind bool) (after *Record, changed bool, err error) {
	after = new(Record)
	*after = *before
	draft := before.draft()
	if err := edit(&draft); err != nil {
		return after, false, err
	}
	if changed, err = after.apply(draft, time.Now()); err != nil {
		return after, false, err
	}
	if needs := rebinds(before, after); len(needs) > 0 && m.isRunning(e) && after.Desired != WantStopped && !rebind {
		meta := map[string]string{"fields": strings.Join(needs, " ")}
		for _, field := range needs {
			if name, ok := strings.CutPrefix(field, "spec.options."); ok && meta["option"] == "" {
				meta["option"] = name
			}
		}
		return after, false, &listeners.Fault{
			Reason: listeners.OptionNeedsRebind, Message: before.Name + ": " + strings.Join(needs, ", ") + " takes new sockets, and that was not allowed",
			Fix: "set allow_rebind: addresses that stay lose no connection", Meta: meta,
		}
	}
	return after, changed, nil
}

// rebinds lists the fields of a change that take new sockets.
func rebinds(before, after *Record) (fields []string) {
	if !slices.Equal(before.Spec.Listen, after.Spec.Listen) {
		fields = append(fields, "spec.listen")
	}
	for _, name := range after.Spec.Rebinds(before.Spec) {
		fields = append(fields, "spec.options."+name)
	}
	return fields
}
