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

// onStarved is called on the loop.
func (m *Manager) onStarved(l *listeners.Listener, why error, used int) {
	m.hear(Event{
		Resource: "listeners/" + l.Name, Type: "daemon.starved", Severity: Failure,
		Message:    fmt.Sprintf("the daemon accepts nothing for now, connections wait in the kernel: %v; listeners and connections have %d descriptors: raise LimitNOFILE, or bound max_connections", why, used),
		Attributes: map[string]string{"error": why.Error(), "descriptors": strconv.Itoa(used)},
	})
}
