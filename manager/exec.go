package manager

import (
	"fmt"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// allows refuses a program that the daemon's own configuration does not allow:
// who may call the API shall not choose what runs. What has been kept, and is
// not to run, is not looked at.
func (m *Manager) allows(s *step) error {
	if s.after == nil || !s.runs() && s.before.Generation != 0 && s.after.Spec.SameHandler(s.before.Spec) {
		return nil
	}
	e, ok := s.after.Spec.Handler.(*listeners.Exec)
	if !ok {
		return nil
	}
	var err error
	s.program, err = m.programs.Resolve(e)
	return violated(err)
}

// onFailing is called on the loop.
func (m *Manager) onFailing(l *listeners.Listener, why string, pause time.Duration) {
	e := Event{
		Resource: "listeners/" + l.Name, Type: "exec.failing", Severity: Failure,
		Message:    fmt.Sprintf("%s accepts nothing for %v: its program fails again and again: %s", l.Name, pause, why),
		Attributes: map[string]string{"error": why, "pause": pause.String()},
	}
	m.hear(e)
}
