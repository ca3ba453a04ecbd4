package manager

import (
	"fmt"
	"strconv"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// onPanicked is called on the loop.
func (m *Manager) onPanicked(l *listeners.Listener, what string, total uint64, pause time.Duration) {
	e := Event{
		Resource: "listeners/" + l.Name, Type: "handler.panicked", Severity: Failure,
		Message:    fmt.Sprintf("the handler of %s panicked; its connection is closed, and the daemon's log has the stack: %s", l.Name, what),
		Attributes: map[string]string{"panic": what, "total": strconv.FormatUint(total, 10)},
	}
	if pause > 0 {
		e.Type = "handler.failing"
		e.Message = fmt.Sprintf("%s accepts nothing for %v: its handler panics again and again: %s", l.Name, pause, what)
		e.Attributes["pause"] = pause.String()
	}
	m.hear(e)
}
