package manager

import (
	"fmt"

	"github.com/sockmgr/sockmgr/listeners"
)

// onUpstream is called on the loop.
func (m *Manager) onUpstream(l *listeners.Listener, u listeners.UpstreamStatus, why string) {
	e := Event{
		Resource: "listeners/" + l.Name, Type: "upstream.up", Severity: Notice,
		Message:    fmt.Sprintf("%s: upstream %s takes connections again", l.Name, u.Address),
		Attributes: map[string]string{"upstream": u.Address},
	}
	if !u.Healthy {
		e.Type, e.Severity = "upstream.down", Warning
		e.Message = fmt.Sprintf("%s: upstream %s is left out: %s", l.Name, u.Address, why)
		e.Attributes["error"] = why
	}
	m.hear(e)
}
