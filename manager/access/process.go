package access

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
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

// startOf reads field 22 of /proc/PID/stat; the second is the name, in brackets,
// which may be anything.
func startOf(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is %.100q", pid, text)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
