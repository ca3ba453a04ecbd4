package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// resources are what daemon and supervisor have when nothing goes on.
type resources struct {
	files, routines int
	heap, resident  int64 // bytes; the heap after a collection
	parentFiles     int
	parentResident  int64
}

// Bounds of what there may be more in the end than in the beginning.
const (
	moreHeap     = 40 << 20 // what remembers the last changes and events fills up, to 16 MiB each
	moreResident = 96 << 20
	moreParent   = 12 << 20
)

const listsForGC = 1500 // that make the collector run at least once

// measure waits until nothing goes on, and has the daemon make garbage until its
// collector has run: the least heap seen is what is in use.
func (s *supervised) measure(ctx context.Context) (r resources, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	stats, list := sockmgrv1.NewStatsServiceClient(s.conn), sockmgrv1.NewListenerServiceClient(s.conn)
	for i := range listsForGC {
		if _, err := list.ListListeners(ctx, &sockmgrv1.ListListenersRequest{View: sockmgrv1.ListenerView_LISTENER_VIEW_FULL}); err != nil {
			return r, err
		}
		if i%20 > 0 {
			continue
		}
		resp, err := stats.GetStats(ctx, &sockmgrv1.GetStatsRequest{Filter: `name = "none"`})
		if err != nil {
			return r, err
		}
		p := resp.GetSnapshot().GetProcess()
		if heap := int64(p.GetHeapBytes()); r.heap == 0 || heap < r.heap {
			r.heap = heap
		}
		r.files, r.routines, r.resident = int(p.GetOpenFiles()), int(p.GetGoroutines()), int64(p.GetResidentBytes())
	}
	r.parentFiles, r.parentResident, err = ofProcess(s.cmd.Process.Pid)
	return r, err
}

// settle measures until the numbers are as in the beginning, or no longer.
func (s *supervised) settle(ctx context.Context, begin resources) (r resources, wrong []string, err error) {
	for end := time.Now().Add(patience); ; {
		if r, err = s.measure(ctx); err != nil {
			return r, nil, err
		}
		if wrong = r.beyond(begin); len(wrong) == 0 || time.Now().After(end) {
			return r, wrong, nil
		}
	}
}

// beyond says what is more than it may be.
func (r resources) beyond(begin resources) (wrong []string) {
	check := func(what string, begin, end, more int64) {
		if end > begin+more {
			wrong = append(wrong, fmt.Sprintf("%s: %d, in the beginning %d, and at most %d more are allowed", what, end, begin, more))
		}
	}
	check("descriptors", int64(begin.files), int64(r.files), 0)
	check("goroutines", int64(begin.routines), int64(r.routines), 0)
	check("heap bytes", begin.heap, r.heap, moreHeap)
	check("resident bytes", begin.resident, r.resident, moreResident)
	check("descriptors of the supervisor", int64(begin.parentFiles), int64(r.parentFiles), 0)
	check("resident bytes of the supervisor", begin.parentResident, r.parentResident, moreParent)
	return wrong
}

func printResources(out io.Writer, begin, end resources) {
	mib := func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
	printf(out, "%-26s %12s %12s\n", "resources, idle", "begin", "end")
	printf(out, "%-26s %12d %12d\n", "descriptors", begin.files, end.files)
	printf(out, "%-26s %12d %12d\n", "goroutines", begin.routines, end.routines)
	printf(out, "%-26s %12s %12s\n", "heap in use", mib(begin.heap), mib(end.heap))
	printf(out, "%-26s %12s %12s\n", "resident", mib(begin.resident), mib(end.resident))
	printf(out, "%-26s %12d %12d\n", "descriptors, supervisor", begin.parentFiles, end.parentFiles)
	printf(out, "%-26s %12s %12s\n", "resident, supervisor", mib(begin.parentResident), mib(end.parentResident))
}

// ofProcess counts descriptors and resident bytes of a process.
func ofProcess(pid int) (files int, resident int64, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("/proc/%d/statm: %q", pid, text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return len(entries), pages * int64(os.Getpagesize()), err
}
