package fdstore

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Environ is the environment in which a service manager starts the daemon, with
// descriptors from 3 on that have the names; the file comes after them, and is to
// be closed then. Without names there is none: it is -1.
func Environ(socket string, silent time.Duration, names []string) (env []string, file int, err error) {
	file = -1
	env = slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return name == "NOTIFY_SOCKET" || name == LongNames || strings.HasPrefix(name, "LISTEN_") || strings.HasPrefix(name, "WATCHDOG_")
	})
	env = append(env, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC="+strconv.FormatInt(silent.Microseconds(), 10))
	longNames := ""
	if len(names) > 0 {
		if file, err = NamesFile(names); err != nil {
			return nil, -1, err
		}
		longNames = strconv.Itoa(firstFD + len(names))
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(names)))
	}
	return append(env, LongNames+"="+longNames), file, nil
}

// WatchdogTime is how long a daemon may be silent that once says WATCHDOG=1:
// $WATCHDOG_USEC, an hour at most. Zero is for any time.
func WatchdogTime(getenv func(string) string) (silent time.Duration, ok bool) {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec < 0 {
		return 0, false
	}
	return time.Duration(min(usec, time.Hour.Microseconds())) * time.Microsecond, true
}
