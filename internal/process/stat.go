// Package process reads what the kernel says of a process.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A Stat is a part of /proc/PID/stat (proc_pid_stat(5)).
type Stat struct {
	Parent int
	Start  uint64 // in ticks of the kernel since boot
}

// StatOf reads that of a process, which may be a zombie.
func StatOf(pid int) (Stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Stat{}, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // the name, in brackets, may be anything
	if len(fields) < 20 {
		return Stat{}, fmt.Errorf("/proc/%d/stat is %.100q", pid, text)
	}
	parent, err := strconv.Atoi(fields[1])
	start, errStart := strconv.ParseUint(fields[19], 10, 64)
	return Stat{parent, start}, errors.Join(err, errStart)
}
