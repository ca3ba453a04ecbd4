package manager

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// A try is a change of options that goes back by itself unless it is confirmed.
// The sockets have the new values at once; what is wanted, and so what is saved,
// keeps the old ones until then. So there is nothing to undo after a crash.
//
//   - A change of the same option for good ends the try of that option; the
//     others go on. A try of the same option takes it over, with what was there
//     before the first.
//   - A change of other fields leaves a try as it is.
//   - When the listener is stopped or deleted, its tries end: connections that
//     finish get the old values back.
type try struct {
	id       string
	name     string  // of the listener
	conn     connRef // of a try on one connection; cookie 0: on the listener
	scope    Scope
	deadline time.Time
	all      []tried // guarded by Manager.mu, and changed under the lock of the name
}

// tried is one option of a try.
type tried struct {
	wanted
	past *listeners.Past // on the loops only, by who holds the lock of the name
}

// A Trial is what a client needs to confirm or to undo a try. Zero: nothing was
// changed.
type Trial struct {
	ID       string
	Deadline time.Time
}

// Bounds of tries.
const (
	maxTries    = 64
	LeastTry    = time.Second
	GreatestTry = time.Hour
)

// TryOptions is SetOptions for a time: see try. The listener must run.
func (m *Manager) TryOptions(ctx context.Context, name string, values map[string]listeners.Value, scope Scope, etag string, after time.Duration) ([]listeners.Result, Trial, error) {
	release, err := m.change(ctx, name)
	if err != nil {
		return nil, Trial{}, err
	}
	defer release()
	e, record, err := m.current(name, etag)
	if err != nil {
		return nil, Trial{}, err
	}
	all, err := parseFor(scope, values, record.Spec)
	if err != nil {
		return nil, Trial{}, err
	}
	if !m.isRunning(e) {
		return nil, Trial{}, &listeners.Fault{
			Reason: listeners.StateInvalid, Message: name + " does not run: there is nothing to try the options on",
			Fix: "sockctl start " + name,
		}
	}
	t, err := m.newTry(name, scope, after)
	if err != nil {
		return nil, Trial{}, err
	}
	results, err := m.begin(ctx, t, m.liveOf(e), record, all)
	return results, m.begun(ctx, t, results, err), err
}

// TryConnOptions is SetConnOptions for a time.
func (m *Manager) TryConnOptions(ctx context.Context, id string, values map[string]listeners.Value, after time.Duration) ([]listeners.Result, Trial, error) {
	st, err := m.Conn(ctx, id)
	if err != nil {
		return nil, Trial{}, err
	}
	all, err := parseOptions(values, st.Network.Class(), onConnOnly)
	if err != nil {
		return nil, Trial{}, err
	}
	release, err := m.change(ctx, st.Listener)
	if err != nil {
		return nil, Trial{}, err
	}
	defer release()
	t, err := m.newTry(st.Listener, ScopeConnections, after)
	if err != nil {
		return nil, Trial{}, err
	}
	t.conn = refOf(&st)
	var results []listeners.Result
	err = m.atConn(ctx, id, t.conn, func(set *listeners.Set) bool {
		for _, w := range all[len(results):] {
			past := set.NewPast(w.option, listeners.Value{})
			if old := m.pastOf(t, w.option); old != nil {
				past = old
			}
			r, found := set.TryConn(past, st.FD, st.Cookie, w.value)
			if !found {
				return false
			}
			if results = append(results, r); took(r) {
				t.all = append(t.all, tried{w, past})
			}
		}
		return true
	})
	return results, m.begun(ctx, t, results, err), err
}

// newTry returns one that has not begun, unless there are too many.
func (m *Manager) newTry(name string, scope Scope, after time.Duration) (*try, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.tries) >= maxTries {
		return nil, &listeners.Fault{
			Reason: listeners.LimitReached, Message: fmt.Sprintf("%d changes wait to be confirmed already", maxTries),
			Fix: "confirm or undo some, or wait until they have gone back", Meta: map[string]string{"limit": fmt.Sprint(maxTries)},
		}
	}
	t := &try{id: newUID()[:8], name: name, scope: scope, deadline: time.Now().Add(after)}
	for m.tries[t.id] != nil {
		t.id = newUID()[:8]
	}
	return t, nil
}

// begin gives the sockets the new values.
func (m *Manager) begin(ctx context.Context, t *try, l *listeners.Listener, record *Record, all []wanted) (results []listeners.Result, err error) {
	err = m.on(ctx, func() error {
		for _, w := range all {
			past := m.pastOf(t, w.option)
			if past == nil {
				past = m.set.NewPast(w.option, record.Spec.Options[w.option.Name])
			}
			if t.scope != ScopeConnections {
				r := l.Tune(w.option, w.value)
				if results = append(results, r); !took(r) {
					continue
				}
				past.Newer()
			}
			t.all = append(t.all, tried{w, past})
		}
		return nil
	})
	_ = m.settled(ctx) // else it will be a moment later
	if err != nil || t.scope == ScopeListener {
		return results, err
	}
	for _, w := range t.all {
		if err == nil && w.option.OnConnection() {
			err = m.through(ctx, func(set *listeners.Set, from int) (next int) {
				results, next = set.TryConns(w.past, l, w.value, from, results)
				return next
			})
		}
		_ = m.on(context.WithoutCancel(ctx), func() error { // if it fails all is closed
			w.past.Older()
			if t.scope == ScopeConnections {
				w.past.Newer() // some may have come during the sweep
			}
			return nil
		})
	}
	return results, err
}

// begun adds a try, which takes its options over from others, and tells of it.
// One that failed half way goes back.
func (m *Manager) begun(ctx context.Context, t *try, results []listeners.Result, err error) Trial {
	resource := t.resource()
	m.tellTuned(ctx, resource, results)
	if len(t.all) == 0 {
		return Trial{}
	}
	m.mu.Lock()
	for _, w := range t.all {
		m.dropLocked(t.rivals, w.option)
	}
	m.tries[t.id] = t
	m.mu.Unlock()
	if err != nil {
		_ = m.undo(ctx, t, "it could not be made as a whole") // the error that there is says more
		return Trial{}
	}
	m.tell(ctx, Event{
		Resource: resource, Type: "option.tried", Severity: Notice, Attributes: t.attributes(),
		Message: fmt.Sprintf("%s: %s until %s unless confirmed", resource, t.text(), t.deadline.Format(time.TimeOnly)),
	})
	if e, err := m.entry(t.name); err == nil {
		m.retell(t, e)
	}
	m.poke()
	return Trial{t.id, t.deadline}
}

// pastOf is the past that an earlier try of the same option remembers. It may be
// called on the loop: m.mu is never held for long.
func (m *Manager) pastOf(t *try, o *listeners.Option) *listeners.Past {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, old := range m.tries {
		if i := old.index(o); i >= 0 && t.rivals(old) {
			return old.all[i].past
		}
	}
	return nil
}

// rivals reports whether two tries are of the same sockets.
func (t *try) rivals(other *try) bool {
	return t.name == other.name && t.conn.fd == other.conn.fd && t.conn.cookie == other.conn.cookie // on whatever loop it is
}

func (t *try) index(o *listeners.Option) int {
	return slices.IndexFunc(t.all, func(w tried) bool { return w.option.Name == o.Name })
}

// dropLocked takes an option out of tries, and returns those that had it. m.mu
// is held.
func (m *Manager) dropLocked(of func(*try) bool, o *listeners.Option) (had []*try) {
	for _, t := range m.tries {
		i := t.index(o)
		if i < 0 || !of(t) {
			continue
		}
		t.all = slices.Delete(slices.Clone(t.all), i, i+1)
		if had = append(had, t); len(t.all) == 0 {
			delete(m.tries, t.id)
		}
	}
	return had
}

// took reports whether the option has the value that was asked, or as near as
// the kernel goes, or will have it.
func took(r listeners.Result) bool {
	return r.Outcome != listeners.Failed && r.Outcome != listeners.NeedsRebind
}
