package main

import (
	"debug/elf"
	"debug/gosym"
	"path/filepath"
	"strconv"
	"strings"
)

// Where time goes.
const (
	partKernel   = "in system calls"
	partEntry    = "entering them" // and interrupts
	partClock    = "clock"
	partRuntime  = "Go runtime"
	partLoop     = "loop"
	partCounters = "timers, counters, limits"
	partHandler  = "handler" // of C and others: all their own code
)

var parts = []string{partKernel, partEntry, partClock, partRuntime, partLoop, partCounters, partHandler}

// samples are perf's, counted.
type samples struct {
	n            int
	parts, calls map[string]int
}

// code tells where in the sources an address of a Go program is, inlined functions
// included; nil: it is no Go program.
type code struct {
	table *gosym.Table
	moved uint64 // where the file's beginning is in memory: perf may count from there
}

// readCode reads what a Go program tells of itself.
func readCode(path string) (*code, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines, text := f.Section(".gopclntab"), f.Section(".text")
	if lines == nil || text == nil {
		return nil, nil
	}
	data, err := lines.Data()
	if err != nil {
		return nil, err
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	return &code{table, text.Addr - text.Offset}, err
}

// file is that of the source that a frame is of; empty: unknown.
func (c *code) file(f frame) string {
	for _, at := range []uint64{f.at, f.at + c.moved} {
		if file, _, function := c.table.PCToLine(at); function != nil && function.Name == f.name {
			return file
		}
	}
	return ""
}

// parseSamples reads what `perf script -F ip,sym,dso` prints: for each sample a line
// for each function, the innermost first, and an empty line.
func parseSamples(text string, c *code) samples {
	s := samples{parts: map[string]int{}, calls: map[string]int{}}
	for one := range strings.SplitSeq(text, "\n\n") {
		var frames []frame
		for line := range strings.Lines(one) {
			if f, ok := parseFrame(line); ok {
				frames = append(frames, f)
			}
		}
		if len(frames) == 0 {
			continue
		}
		s.n++
		part, call := c.classify(frames)
		s.parts[part]++
		if call != "" {
			s.calls[call]++
		}
	}
	return s
}

// A frame is a function that was running.
type frame struct {
	at       uint64
	name     string
	inKernel bool
	file     string // that has its code
}

func parseFrame(line string) (f frame, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return f, false
	}
	var err error
	f.at, err = strconv.ParseUint(fields[0], 16, 64)
	f.name = fields[1]
	f.file = strings.Trim(fields[len(fields)-1], "()")
	f.inKernel = f.at>>63 == 1
	return f, err == nil
}

// classify names the part that a sample belongs to, and the system call if it is in
// one.
func (c *code) classify(frames []frame) (part, call string) {
	if frames[0].inKernel {
		for _, f := range frames {
			for _, prefix := range []string{"__x64_sys_", "__arm64_sys_", "ksys_"} {
				if name, ok := strings.CutPrefix(f.name, prefix); ok {
					return partKernel, name
				}
			}
		}
		return partEntry, ""
	}
	f := frames[0]
	switch {
	case strings.Contains(f.name, "clock_gettime") || f.file == "[vdso]":
		return partClock, ""
	case strings.HasPrefix(filepath.Base(f.file), "libc"): // the C library's calls
		return partEntry, ""
	case c == nil:
		return partHandler, ""
	case strings.HasPrefix(f.name, "syscall.") || strings.HasPrefix(f.name, "golang.org/x/sys/unix."):
		return partEntry, ""
	}
	return partOf(c.file(f)), ""
}

// partOf goes by the file a piece of code is in. What counts bytes in the middle of
// a handler is the handler's.
func partOf(file string) string {
	dir, name := filepath.Split(file)
	switch {
	case strings.Contains(dir, "internal/runtime/syscall/"), strings.HasSuffix(dir, "/syscall/"), strings.Contains(dir, "x/sys"), strings.HasSuffix(file, "/listeners/sys.go"):
		return partEntry
	case strings.HasPrefix(name, "time_nofake") || strings.HasPrefix(name, "vdso") || strings.HasPrefix(name, "time_linux") || strings.HasSuffix(dir, "/time/"):
		return partClock
	case strings.HasPrefix(name, "mem") || strings.HasSuffix(dir, "internal/bytealg/"): // copies and compares for who called
		return partHandler
	case strings.Contains(dir, "runtime/"):
		return partRuntime
	}
	switch name {
	case "timer.go", "histogram.go", "stats.go", "counters.go", "sample.go", "conn_time.go", "pace.go", "gate.go", "bucket.go", "slow.go", "stall.go":
		return partCounters
	}
	if strings.HasSuffix(dir, "/mux/") {
		return partLoop
	}
	return partHandler
}
