package manager

import (
	"context"

	"github.com/sockmgr/sockmgr/listeners"
)

// preview says what a change of a listener's options would come to, as far as
// that is known without it: what was refused or clamped on a socket of its own.
// The outcome is 0 where it would be set.
func (m *Manager) preview(ctx context.Context, e *entry, spec listeners.Spec, all []wanted, scope Scope) ([]listeners.Result, error) {
	now, l := spec.Options, m.liveOf(e)
	if l != nil {
		if err := m.on(ctx, func() error { now = l.InForce(nil); return nil }); err != nil {
			return nil, err
		}
	}
	var results []listeners.Result
	for _, w := range all {
		r := foresee(spec, w, now[w.option.Name])
		switch {
		case r.Outcome == listeners.Failed:
		case l == nil:
			r.Outcome, r.Message = listeners.Deferred, "in force when the listener runs"
		case scope == ScopeConnections && r.Outcome == listeners.Unchanged:
			r.Outcome = 0 // the connections may differ from the listener
		case w.option.Effect == listeners.Rebind && r.Outcome != listeners.Unchanged:
			r.Outcome, r.Message = listeners.NeedsRebind, "would take a new socket: apply it with --rebind"
		}
		results = append(results, said(r))
	}
	return results, nil
}

// previewConn is preview for one connection of a listener of spec.
func (m *Manager) previewConn(ctx context.Context, id string, ref connRef, spec listeners.Spec, all []wanted) ([]listeners.Result, error) {
	var now map[string]listeners.Value
	if err := m.atConn(ctx, id, ref, func(set *listeners.Set) (found bool) {
		now, found = set.ConnInForce(ref.fd, ref.cookie, nil)
		return found
	}); err != nil {
		return nil, err
	}
	var results []listeners.Result
	for _, w := range all {
		results = append(results, said(foresee(spec, w, now[w.option.Name])))
	}
	return results, nil
}

// foresee is what is known of a change from what is in force now.
func foresee(spec listeners.Spec, w wanted, now listeners.Value) listeners.Result {
	r := listeners.Rehearse(spec, w.option, w.value)
	want, known := r.Effective, r.Outcome != 0
	switch {
	case r.Outcome == listeners.Failed, r.Outcome == listeners.Clamped:
		known = false
	case w.value == listeners.Value{}:
		want, known = w.option.Probe()
	case !known:
		want, known = w.value, !w.option.IsRaw()
	}
	if r.Outcome == listeners.Applied || r.Outcome == listeners.Unchanged { // of the other socket
		r.Outcome = 0
	}
	if known && want == now {
		r.Outcome = listeners.Unchanged
	}
	r.Previous, r.Effective = now, now
	return r
}

// said has words for what is not known before it is done.
func said(r listeners.Result) listeners.Result {
	if r.Outcome == 0 {
		r.Message = "would be set"
	}
	return r
}
