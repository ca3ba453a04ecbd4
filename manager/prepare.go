package manager

import (
	"context"
	"errors"
	"iter"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// prepareAll prepares steps, as if it was done in their order; err of each says what
// came of it.
func (m *Manager) prepareAll(ctx context.Context, steps []*step) {
	cause := causeOf(ctx)
	m.mu.Lock()
	for _, s := range steps {
		s.live, s.running = s.e.live, s.e.live != nil && !s.e.stopping
		s.e.cause = cause // before the loop does anything that is told
		s.tried = m.triedLocked(s.name())
	}
	m.mu.Unlock()
	one := func(s *step) {
		if s.runs() && s.live != nil && s.claims() {
			s.err = m.on(ctx, s.claim)
		}
		if s.err == nil {
			s.err = m.allows(s)
		}
		if s.err == nil {
			s.err = s.prepare(m.kept)
		}
	}
	defer func() {
		for _, s := range steps {
			s.err = m.namingOurs(s.err)
		}
	}()
	if goroutines(len(steps)) == 1 || slices.ContainsFunc(steps, func(s *step) bool { return !s.alone() }) {
		for _, s := range steps {
			one(s)
		}
		return
	}
	Spread(len(steps), func(some iter.Seq[int]) {
		for i := range some {
			one(steps[i])
		}
	})
	// What one failed by may be what a later one took first.
	if i := slices.IndexFunc(steps, func(s *step) bool { return contested(s.err) }); i >= 0 {
		m.abandonAll(steps[i:])
		m.settleKept(ctx)
		for _, s := range steps[i:] {
			s.err, s.notes = nil, nil
			one(s)
		}
	}
}

// alone reports whether a step does not touch what runs, nor files: others may be
// prepared meanwhile.
func (s *step) alone() bool {
	return s.live == nil && (!s.runs() || !slices.ContainsFunc(s.after.Spec.Listen, func(a listeners.Address) bool { return a.Path != "" }))
}

// contested reports whether another step of the same change may be why one failed.
func contested(err error) bool {
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return true
	}
	f, ok := errors.AsType[*listeners.Fault](err)
	return ok && f.Reason == listeners.AddressInUse && (f.Meta["holder_pid"] == "" || f.Meta["holder_pid"] == ownPid)
}
