package daemon

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sockmgr/sockmgr/manager"
)

// watchdog has the loop looked at. systemd's WatchdogSec= is fed while it turns,
// four times as often as must be; a loop that is stuck is ended by systemd then,
// with a core or a stack of all goroutines, and started again.
func watchdog(keep *keeper, getenv func(string) string) manager.Watchdog {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 || !isWatched(getenv) {
		return manager.Watchdog{}
	}
	every := time.Duration(min(usec, time.Hour.Microseconds())) * time.Microsecond / 4
	return manager.Watchdog{Every: max(every, 10*time.Millisecond), Alive: func() { keep.tell("WATCHDOG=1") }}
}

// isWatched reports whether the watchdog is about this process, and not about one
// that has started it.
func isWatched(getenv func(string) string) bool {
	pid := getenv("WATCHDOG_PID")
	return pid == "" || pid == strconv.Itoa(os.Getpid())
}

// heirEnviron is the environment of the process that takes over: who watched this
// one watches that one then, whose pid nobody has known.
func heirEnviron() []string {
	watched := isWatched(os.Getenv)
	return slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return name == "WATCHDOG_PID" && watched
	})
}
