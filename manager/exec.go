package manager

import (
	"encoding/json"
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
	if s.after == nil || !s.runs() && s.before.Generation != 0 && sameHandler(s.before.Spec, s.after.Spec) {
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

func sameHandler(a, b listeners.Spec) bool {
	x, errA := json.Marshal(a.Handler)
	y, errB := json.Marshal(b.Handler)
	return errA == nil && errB == nil && a.Handler != nil && a.Handler.Kind() == b.Handler.Kind() && string(x) == string(y)
}

// onFailing is called on the loop, which never waits: it leaves word for the
// keeper.
func (m *Manager) onFailing(l *listeners.Listener, why string, pause time.Duration) {
	e := Event{
		Resource: "listeners/" + l.Name, Type: "exec.failing", Severity: Failure,
		Message:    fmt.Sprintf("%s accepts nothing for %v: its program fails again and again: %s", l.Name, pause, why),
		Attributes: map[string]string{"error": why, "pause": pause.String()},
	}
	m.changedMu.Lock()
	if len(m.heard) < maxHeard {
		m.heard = append(m.heard, e)
	}
	m.changedMu.Unlock()
	m.poke()
}
