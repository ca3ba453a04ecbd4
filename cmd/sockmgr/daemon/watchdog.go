package daemon

import (
	"os"
	"strconv"
	"time"

	"github.com/sockmgr/sockmgr/manager"
)

// watchdog has the loop looked at. systemd's WatchdogSec= is fed while it turns,
// four times as often as must be; a loop that is stuck is ended by systemd then,
// with a core or a stack of all goroutines, and started again.
func watchdog(keep *keeper, getenv func(string) string) manager.Watchdog {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	pid := getenv("WATCHDOG_PID")
	if err != nil || usec <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return manager.Watchdog{}
	}
	every := time.Duration(min(usec, time.Hour.Microseconds())) * time.Microsecond / 4
	return manager.Watchdog{Every: max(every, 10*time.Millisecond), Alive: func() { keep.tell("WATCHDOG=1") }}
}
