package daemon

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/manager"
)

// watchdog has the loop looked at. systemd's WatchdogSec= is fed while it turns,
// four times as often as must be; a loop that is stuck is ended by systemd then,
// with a core or a stack of all goroutines, and started again.
func watchdog(keep *keeper, getenv func(string) string) manager.Watchdog {
	silent, _ := fdstore.WatchdogTime(getenv)
	if silent == 0 || !isWatched(getenv) {
		return manager.Watchdog{}
	}
	return manager.Watchdog{Every: max(silent/4, 10*time.Millisecond), Alive: func() { keep.tell("WATCHDOG=1") }}
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
