package access

import (
	"os"

	"github.com/sockmgr/sockmgr/internal/process"
)

// A Process is known by its pid and by when it was started: the number alone is
// given to another one day.
type Process struct {
	PID   int
	Start uint64 // in ticks of the kernel since boot; 0: nobody knows
}

// ThisProcess is the one that asks.
func ThisProcess() Process {
	start, _ := startOf(os.Getpid()) // 0 where there is no /proc
	return Process{os.Getpid(), start}
}

// Is reports whether a process that has, or had, the pid is p. One that has ended
// is: what it has sent may be on its way still.
func (p Process) Is(pid int) bool {
	if pid != p.PID {
		return false
	}
	start, err := startOf(pid)
	return err != nil || p.Start == 0 || start == p.Start
}

// Lives reports whether it has not ended.
func (p Process) Lives() bool {
	start, err := startOf(p.PID)
	return err == nil && (p.Start == 0 || start == p.Start)
}

func startOf(pid int) (uint64, error) {
	stat, err := process.StatOf(pid)
	return stat.Start, err
}
