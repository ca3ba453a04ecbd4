package supervise

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
)

// watchdogTime is how long a daemon may be silent that has once said WATCHDOG=1,
// which it does while its loop turns: $WATCHDOG_USEC, 0 for any time.
func watchdogTime() time.Duration {
	if d, ok := fdstore.WatchdogTime(os.Getenv); ok {
		return d
	}
	return 30 * time.Second
}

// look ends a daemon that is silent for too long: first so that it leaves the
// stacks of its goroutines, then for sure. It does so four times in the time that
// a daemon has: if it was this process that stood still, what the daemon has said
// meanwhile is heard between two looks.
func (s *supervisor) look() {
	d := s.d
	if s.watchdog == 0 || d == nil || d.fed.IsZero() || time.Since(d.fed) <= s.watchdog {
		return
	}
	d.late++
	with := map[int]syscall.Signal{2: syscall.SIGABRT, 3: syscall.SIGKILL}[d.late]
	if with == 0 {
		return
	}
	s.lines.add("the daemon (pid %d) has not turned for %v: %v", d.pid, time.Since(d.fed).Round(time.Millisecond), with)
	_ = unix.PidfdSendSignal(d.pidfd, with, nil, 0) // or it has ended
}
