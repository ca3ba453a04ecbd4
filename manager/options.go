package manager

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// A Scope is which sockets of a listener a change of options reaches.
type Scope uint8

// The scopes.
const (
	ScopeAll         Scope = iota // the listener, what it will accept, and what is open
	ScopeListener                 // the listener and what it will accept
	ScopeConnections              // what is open; what is wanted does not change
)

// SetOptions changes options of a listener and returns what came of each, as
// the kernel has it. Either all values can be understood, or nothing changes;
// one that the kernel refuses is a Result, and does not keep others from being
// made. With checkOnly nothing changes.
func (m *Manager) SetOptions(ctx context.Context, name string, values map[string]listeners.Value, scope Scope, etag string, checkOnly bool) ([]listeners.Result, error) {
	release, err := m.change(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	e, record, err := m.current(name, etag)
	if err != nil {
		return nil, err
	}
	wanted, err := parseFor(scope, values, record.Spec)
	if err != nil {
		return nil, err
	}
	if checkOnly {
		return m.preview(ctx, e, record.Spec, wanted, scope)
	}
	if !m.isRunning(e) {
		return m.setLater(ctx, e, record, wanted)
	}
	var results []listeners.Result
	if scope != ScopeConnections {
		if results, err = m.tune(ctx, e, record, wanted); err != nil {
			return nil, err
		}
	}
	if scope != ScopeListener {
		var all []listeners.Result
		all, err = m.tuneConns(ctx, m.liveOf(e), wanted)
		results = append(results, all...)
	}
	m.tellTuned(ctx, "listeners/"+name, results)
	m.overrule(ctx, name, wanted, scope, results)
	return results, err
}

// parseFor is parseOptions for a listener.
func parseFor(scope Scope, values map[string]listeners.Value, spec listeners.Spec) ([]wanted, error) {
	return parseOptions(values, spec.Class(), func(o *listeners.Option) string {
		if text := spec.Refuses(o); text != "" {
			return text
		}
		if scope == ScopeConnections && !o.OnConnection() {
			return "cannot be set on open connections: it is the listener's"
		}
		return ""
	})
}

// wanted is an option with the value that it shall have.
type wanted struct {
	option *listeners.Option
	value  listeners.Value
}

// parseOptions checks all values and returns them in order of their names.
// objection may say why an option will not do.
func parseOptions(values map[string]listeners.Value, class listeners.NetworkSet, objection func(*listeners.Option) string) ([]wanted, error) {
	var all []wanted
	var faults []*listeners.Violation
	if len(values) == 0 {
		faults = append(faults, &listeners.Violation{Field: "options", Message: "is empty: name an option and its value"})
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v, err := listeners.ParseOption(name, values[name], class)
		if err != nil {
			faults = append(faults, listeners.Violations(err)...)
			continue
		}
		o := listeners.LookupOption(name)
		if slices.ContainsFunc(all, func(w wanted) bool { return w.option.Name == o.Name }) {
			faults = append(faults, &listeners.Violation{Field: "spec.options." + name, Message: "is there twice, as " + o.Name + " too"})
			continue
		}
		if text := objection(o); text != "" {
			faults = append(faults, &listeners.Violation{Field: "spec.options." + name, Message: text})
		}
		all = append(all, wanted{o, v})
	}
	for _, f := range faults { // in this request they stand elsewhere
		f.Field = optionField(f.Field)
	}
	return all, invalid(faults)
}

func optionField(field string) string {
	const prefix = "spec."
	if len(field) > len(prefix) && field[:len(prefix)] == prefix {
		return field[len(prefix):]
	}
	return field
}

// setLater changes what is wanted of a listener that does not run.
func (m *Manager) setLater(ctx context.Context, e *entry, record *Record, all []wanted) ([]listeners.Result, error) {
	var results []listeners.Result
	spec := record.Spec
	for _, w := range all {
		results = append(results, listeners.Result{
			Option: w.option, Requested: w.value, Previous: spec.Options[w.option.Name],
			Outcome: listeners.Deferred, Message: "in force when the listener runs",
		})
		spec = spec.With(w.option.Name, w.value)
	}
	return results, m.wantSpec(ctx, e, record, spec)
}

// wantSpec saves a record with another spec and publishes it.
func (m *Manager) wantSpec(ctx context.Context, e *entry, record *Record, spec listeners.Spec) error {
	after := *record
	after.Spec = spec
	after.touch(time.Now())
	if err := m.store.commit(change{name: after.Name, put: &after}); err != nil {
		return err
	}
	m.with(e, func(e *entry) { e.record = &after })
	m.told(ctx, Modified, e)
	return nil
}

// tune changes a running listener's own sockets, and then what is wanted. When
// that cannot be saved, the sockets are as before.
func (m *Manager) tune(ctx context.Context, e *entry, record *Record, all []wanted) ([]listeners.Result, error) {
	l := m.liveOf(e)
	var results []listeners.Result
	spec := record.Spec // not the listener's own: that has what is only tried
	var before listeners.Spec
	if err := m.on(ctx, func() error {
		before = l.Spec()
		for _, w := range all {
			r := l.Tune(w.option, w.value)
			if results = append(results, r); took(r) {
				spec = spec.With(w.option.Name, w.value)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	_ = m.settled(ctx) // else it will be a moment later
	if spec.Equal(record.Spec) {
		return results, nil
	}
	if err := m.wantSpec(ctx, e, record, spec); err != nil {
		_ = m.on(context.WithoutCancel(ctx), func() error { // ended means closed
			for _, w := range all {
				l.Tune(w.option, before.Options[w.option.Name])
			}
			return nil
		})
		return nil, err
	}
	return results, nil
}

// tuneConns changes what is open, a bounded number a turn.
func (m *Manager) tuneConns(ctx context.Context, l *listeners.Listener, all []wanted) ([]listeners.Result, error) {
	var results []listeners.Result
	for _, w := range all {
		if !w.option.OnConnection() {
			continue
		}
		if err := m.through(ctx, func(set *listeners.Set, from int) (next int) {
			results, next = set.TuneConns(l, w.option, w.value, from, results)
			return next
		}); err != nil {
			return results, err
		}
	}
	return results, nil
}

// Options returns the options in force on a listener, as the kernel has them:
// those named, or all. Of one that is not bound it returns what is wanted.
func (m *Manager) Options(ctx context.Context, name string, names []string) (map[string]listeners.Value, error) {
	e, err := m.entry(name)
	if err != nil {
		return nil, err
	}
	if err := KnownOptions(names); err != nil {
		return nil, err
	}
	l := m.liveOf(e)
	if l == nil {
		var spec listeners.Spec
		m.with(e, func(e *entry) { spec = e.record.Spec })
		return spec.Wanted(names), nil
	}
	var values map[string]listeners.Value
	err = m.on(ctx, func() error { values = l.InForce(names); return nil })
	return values, err
}

// KnownOptions refuses names that are not in the table.
func KnownOptions(names []string) error {
	var faults []*listeners.Violation
	for i, name := range names {
		_, err := listeners.ParseOption(name, listeners.Value{}, 0)
		for _, f := range listeners.Violations(err) {
			f.Field = fmt.Sprintf("names[%d]", i)
			faults = append(faults, f)
		}
	}
	return invalid(faults)
}
