package manager

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ProcessStats are what the daemon uses.
type ProcessStats struct {
	Resident    uint64 // bytes
	Heap        uint64 // bytes of objects in Go's heap
	CPU         time.Duration
	CPURatio    float64 // of the last ten seconds; 1 is one processor
	OpenFiles   int
	FilesLimit  uint64 // RLIMIT_NOFILE
	Goroutines  int
	LastGCPause time.Duration
}

// Process returns the numbers of the process. What the system does not tell is
// zero.
func (m *Manager) Process() ProcessStats {
	s := ProcessStats{CPU: cpuTime(), Resident: resident(), OpenFiles: openFiles(), Goroutines: runtime.NumGoroutine()}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		s.FilesLimit = limit.Cur
	}
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	if metrics.Read(heap); heap[0].Value.Kind() == metrics.KindUint64 {
		s.Heap = heap[0].Value.Uint64()
	}
	var gc debug.GCStats
	if debug.ReadGCStats(&gc); len(gc.Pause) > 0 {
		s.LastGCPause = gc.Pause[0] // the newest
	}
	m.mu.Lock()
	s.CPURatio = m.loopPast[0].cpu()
	m.mu.Unlock()
	return s
}

// resident is the second number of /proc/self/statm, which counts pages.
func resident() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// openFiles is the size of /proc/self/fd since Linux 6.2, and 0 before that.
func openFiles() int {
	const dir = "/proc/self/fd"
	if fi, err := os.Stat(dir); err == nil && fi.Size() > 0 {
		return int(fi.Size())
	}
	entries, err := os.ReadDir(dir) // slow with many, but true
	if err != nil {
		return 0
	}
	return len(entries) - 1 // without the one that reads
}
