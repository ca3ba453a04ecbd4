package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

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
