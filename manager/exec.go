package manager

import (
	"fmt"
	"slices"
	"strings"
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
	if !ok || slices.Contains(m.programs, e.Program()) {
		return nil
	}
	allowed := "none is"
	if len(m.programs) > 0 {
		allowed = "allowed are " + strings.Join(m.programs, ", ")
	}
	return invalid([]*listeners.Violation{{
		Field:   "spec.handler.exec.command[0]",
		Message: fmt.Sprintf("%s is not a program that the daemon may run (%s): add it to exec-allow in the daemon's configuration, and start the daemon again", e.Program(), allowed),
	}})
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
