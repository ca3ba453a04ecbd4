package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// Pause stops a listener from accepting; its sockets stay, and open connections
// go on. mode says what clients meet, NotPaused what its spec says. With a
// resumeAfter above 0 the pause ends by itself, over a restart of the daemon
// too. One that is paused takes the mode and the time.
func (m *Manager) Pause(ctx context.Context, name, etag string, mode listeners.PauseMode, resumeAfter time.Duration) (Info, error) {
	info, err := m.want(ctx, name, etag, func(s *step) error {
		if mode == listeners.NotPaused {
			mode = s.before.Spec.PauseMode
		}
		return s.pause(mode, resumeAfter)
	})
	m.poke() // it knows when to resume
	return info, err
}

// pause makes a step one that pauses.
func (s *step) pause(mode listeners.PauseMode, resumeAfter time.Duration) (err error) {
	if s.before.Desired == WantStopped {
		return notBound(s.before.Name)
	}
	if s.after.Spec, err = s.before.Spec.WithPolicy(mode, s.before.Spec.Drain); err != nil {
		return invalid(listeners.Violations(err))
	}
	s.after.Desired, s.after.ResumeAt = WantPaused, time.Time{}
	if resumeAfter > 0 {
		s.after.ResumeAt = time.Now().Add(resumeAfter)
	}
	return nil
}

func notBound(name string) error {
	return &listeners.Fault{
		Reason: listeners.StateInvalid, Message: name + " is stopped: it has no sockets",
		Fix: "sockctl start " + name,
	}
}

// Resume ends a pause or a drain.
func (m *Manager) Resume(ctx context.Context, name, etag string) (Info, error) {
	return m.want(ctx, name, etag, func(s *step) error {
		if s.before.Desired == WantStopped {
			return notBound(name)
		}
		s.after.Desired, s.after.ResumeAt = WantRunning, time.Time{}
		return nil
	})
}

// Drain pauses a listener and gives its connections the time to finish,
// SpecDrain for what its spec says. Resume and Start take it back. One that drains drains no
// longer than said now.
func (m *Manager) Drain(ctx context.Context, name, etag string, timeout time.Duration) (Info, error) {
	return m.want(ctx, name, etag, func(s *step) error {
		if !m.isRunning(s.e) {
			return notBound(name)
		}
		s.empty, s.drain = true, s.before.drainTime(timeout)
		if s.before.Desired == WantPaused {
			return nil
		}
		return s.pause(s.before.Spec.PauseMode, 0)
	})
}

// resumeDue ends the pauses whose time has come, and returns when it wants to
// be called again.
func (m *Manager) resumeDue() time.Duration {
	next := time.Hour
	due := map[string]*entry{}
	m.mu.Lock()
	for e := range m.tended {
		if e.record.ResumeAt.IsZero() || e.failure != nil || e.deleting {
			continue
		}
		at := e.record.ResumeAt
		if e.retry.After(at) {
			at = e.retry
		}
		if wait := time.Until(at); wait > 0 {
			next = min(next, wait)
		} else {
			due[e.record.Name] = e
		}
	}
	m.mu.Unlock()
	for name, e := range due {
		if _, err := m.Resume(context.Background(), name, ""); err != nil && !m.isClosing() {
			m.resumeFailed(name, e, err)
			next = min(next, retryLeast)
		}
	}
	return next
}

// resumeFailed says so, and has it tried again.
func (m *Manager) resumeFailed(name string, e *entry, err error) {
	m.with(e, func(e *entry) {
		e.backoff = min(max(2*e.backoff, retryLeast), retryMost)
		e.retry = time.Now().Add(e.backoff)
	})
	m.tell(context.Background(), Event{
		Resource: "listeners/" + name, Type: "listener.resume_failed", Severity: Failure,
		Message: fmt.Sprintf("%s cannot be resumed; it is tried again: %v", name, err),
	})
	m.log.Warn("listener cannot be resumed; it is tried again", "listener", name, "error", err)
}
