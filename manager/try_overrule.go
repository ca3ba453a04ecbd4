package manager

import (
	"context"
	"fmt"
	"slices"

	"github.com/sockmgr/sockmgr/listeners"
)

// overrule ends tries of options that were changed for good meanwhile, as far as
// the change reached. The name is locked.
func (m *Manager) overrule(ctx context.Context, name string, all []wanted, scope Scope, results []listeners.Result) {
	if m.noTries() {
		return
	}
	for _, w := range all {
		failed := func(r listeners.Result) bool { return r.Option == w.option && !took(r) }
		if slices.ContainsFunc(results, failed) {
			continue
		}
		of := func(t *try) bool {
			switch {
			case t.name != name:
				return false
			case t.conn.cookie != 0 || t.scope == ScopeConnections:
				return scope != ScopeListener
			default:
				return scope != ScopeConnections
			}
		}
		m.mu.Lock()
		had := m.dropLocked(of, w.option)
		var kept []*listeners.Past
		for _, t := range m.tries {
			if i := t.index(w.option); i >= 0 && t.name == name && t.conn.cookie == 0 && scope == ScopeConnections {
				kept = append(kept, t.all[i].past)
			}
		}
		m.mu.Unlock()
		_ = m.on(context.WithoutCancel(ctx), func() error { // if it fails all is closed
			for _, p := range kept {
				p.Kept(m.set)
			}
			return nil
		})
		m.tellSettled(ctx, had, w.option)
	}
}

func (m *Manager) tellSettled(ctx context.Context, had []*try, o *listeners.Option) {
	for _, t := range had {
		m.tell(ctx, Event{
			Resource: t.resource(), Type: "option.settled", Severity: Notice, Attributes: map[string]string{"change_id": t.id, "option": o.Name},
			Message: fmt.Sprintf("%s: %s was changed for good, and is not tried any more", t.resource(), o.Name),
		})
	}
}

// overruleConn is overrule for one connection.
func (m *Manager) overruleConn(ctx context.Context, listener string, cookie uint64, results []listeners.Result) {
	if m.noTries() {
		return
	}
	release, err := m.change(context.WithoutCancel(ctx), listener)
	if err != nil {
		return // shutting down: no try will go back
	}
	defer release()
	for _, r := range results {
		if !took(r) {
			continue
		}
		m.mu.Lock()
		had := m.dropLocked(func(t *try) bool { return t.conn.cookie == cookie }, r.Option)
		var pasts []*listeners.Past
		for _, t := range m.tries {
			if i := t.index(r.Option); i >= 0 && t.name == listener && t.conn.cookie == 0 {
				pasts = append(pasts, t.all[i].past)
			}
		}
		m.mu.Unlock()
		_ = m.on(context.WithoutCancel(ctx), func() error { // if it fails all is closed
			for _, p := range pasts {
				p.Later(cookie, r.Requested)
			}
			return nil
		})
		m.tellSettled(ctx, had, r.Option)
	}
}

func (m *Manager) noTries() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.tries) == 0
}

// settleTries ends the tries that a change has made pointless: of options that
// it changed, and all of listeners that it stopped. Their names are locked.
func (m *Manager) settleTries(ctx context.Context, steps []*step) {
	if m.noTries() {
		return
	}
	for _, s := range steps {
		switch {
		case s.err != nil || !s.running:
		case s.runs():
			for _, w := range changedOptions(s.before.Spec, s.after.Spec) {
				m.mu.Lock()
				had := m.dropLocked(func(t *try) bool { return t.name == s.name() && t.scope != ScopeConnections }, w)
				m.mu.Unlock()
				m.tellSettled(ctx, had, w)
			}
		default:
			m.stopTries(ctx, s)
		}
	}
}

func (m *Manager) stopTries(ctx context.Context, s *step) {
	m.mu.Lock()
	var ended []*try
	for _, t := range m.tries {
		if t.name == s.name() {
			ended = append(ended, t)
		}
	}
	m.mu.Unlock()
	for _, t := range ended {
		results, _ := m.goBack(context.WithoutCancel(ctx), t, s.live, s.before.Spec, false) // if it fails all is closed
		m.forgetTry(t)
		m.tellReverted(ctx, t, results, "the listener was stopped")
	}
}

func changedOptions(before, after listeners.Spec) (changed []*listeners.Option) {
	for name, v := range before.Options {
		if after.Options[name] != v {
			changed = append(changed, listeners.LookupOption(name))
		}
	}
	for name := range after.Options {
		if _, had := before.Options[name]; !had {
			changed = append(changed, listeners.LookupOption(name))
		}
	}
	return changed
}
