package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuUsage is CPU time used so far: by a server, and by everyone else on the
// machine but the server and this process.
type cpuUsage struct {
	server, others time.Duration
}

func usage(pid int) cpuUsage {
	server := treeCPU(pid)
	return cpuUsage{server: server, others: machineCPU() - server - cpuClock(os.Getpid())}
}

func (u cpuUsage) since(before cpuUsage) cpuUsage {
	return cpuUsage{server: u.server - before.server, others: max(0, u.others-before.others)}
}

// cpuClock reads the CPU clock of a process: what /proc/PID/stat counts in
// hundredths of a second, in nanoseconds (clock_getcpuclockid(3)).
func cpuClock(pid int) time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// treeCPU is that of a process, of those it started, and of those that have ended
// and that it waited for: a server that forks has its connections in them. Of
// the last the kernel tells hundredths of a second only.
func treeCPU(pid int) time.Duration {
	sum := cpuClock(pid)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return sum
	}
	// The name, in parentheses, may have spaces. State is the first field after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, at := range []int{13, 14} { // cutime, cstime
		if at < len(fields) {
			ticks, _ := strconv.ParseInt(fields[at], 10, 64)
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // gone: there are none
	for field := range strings.FieldsSeq(string(children)) {
		if child, err := strconv.Atoi(field); err == nil {
			sum += treeCPU(child)
		}
	}
	return sum
}

// machineCPU is the time that all CPUs together were busy: user, nice, system,
// irq and softirq of /proc/stat.
func machineCPU() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	var ticks int64
	for i, field := range strings.Fields(string(line)) {
		switch i {
		case 1, 2, 3, 6, 7:
			n, _ := strconv.ParseInt(field, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// rss is the resident memory of a process in bytes.
func rss(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of pid %d", pid)
}

// voluntary is how often the threads of a process that run now went to wait: each
// time, something woke them.
func voluntary(pid int) (n int64) {
	dir := fmt.Sprintf("/proc/%d/task/", pid)
	threads, _ := os.ReadDir(dir) // gone: none
	for _, t := range threads {
		status, _ := os.ReadFile(dir + t.Name() + "/status")
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				some, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				n += some
			}
		}
	}
	return n
}
