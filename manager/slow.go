package manager

import (
	"fmt"
	"strconv"

	"github.com/sockmgr/sockmgr/listeners"
)

// onSlow is called on the loop.
func (m *Manager) onSlow(l *listeners.Listener, ended uint64, why listeners.CloseReason) {
	m.hear(Event{
		Resource: "listeners/" + l.Name, Type: "listener.slow_readers", Severity: Warning,
		Message:    fmt.Sprintf("connections of %s were ended whose peers do not read what is sent to them: %d so far, the last because of %s", l.Name, ended, slowWords[why]),
		Attributes: map[string]string{"ended": strconv.FormatUint(ended, 10), "reason": why.String()},
	})
}

// slowWords are the limits behind the reasons.
var slowWords = map[listeners.CloseReason]string{
	listeners.ClosedByStall: "write_timeout",
	listeners.ClosedBySlow:  "listener_write_buffer_bytes, or --write-buffer-bytes of the daemon",
}
