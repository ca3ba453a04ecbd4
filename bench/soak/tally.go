package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of what is kept.
const (
	keptTimes  = 20_000 // of each kind of operation, a fair sample
	keptBroken = 40
)

// A tally is what was done, and what came of it.
type tally struct {
	mu     sync.Mutex
	kinds  map[string]*kind
	broken []string // promises that were not kept
	more   int      // beyond those
}

// kind is one kind of operation.
type kind struct {
	done, lost int64 // lost: by a kill
	errors     map[string]int64
	seen       int64
	times      []time.Duration
}

func newTally() *tally { return &tally{kinds: map[string]*kind{}} }

func (t *tally) of(name string) *kind {
	k := t.kinds[name]
	if k == nil {
		k = &kind{errors: map[string]int64{}}
		t.kinds[name] = k
	}
	return k
}

// did counts one that went well.
func (t *tally) did(name string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.of(name)
	k.done++
	if k.seen++; len(k.times) < keptTimes {
		k.times = append(k.times, took)
	} else if at := rand.Int64N(k.seen); at < keptTimes {
		k.times[at] = took
	}
}

// lost counts one that a kill has ended.
func (t *tally) lost(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(name).lost++
}

// refused counts one that was answered with an error, as it should be.
func (t *tally) refused(name, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(name).errors[why]++
}

// broke notes a promise that was not kept.
func (t *tally) broke(name, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(name).errors["BROKEN"]++
	if len(t.broken) == keptBroken {
		t.more++
		return
	}
	t.broken = append(t.broken, fmt.Sprintf("%s %s: ", time.Now().Format("15:04:05.000"), name)+fmt.Sprintf(format, args...))
}

// print writes the table, and what was broken.
func (t *tally) print(out io.Writer) (broken int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	printf(out, "%-18s %10s %8s %10s %10s  %s\n", "operation", "done", "lost", "p50", "p99", "refused")
	for _, name := range slices.Sorted(maps.Keys(t.kinds)) {
		k := t.kinds[name]
		slices.Sort(k.times)
		at := func(q float64) time.Duration {
			if len(k.times) == 0 {
				return 0
			}
			return k.times[int(q*float64(len(k.times)-1))].Round(10 * time.Microsecond)
		}
		var errs []string
		for _, why := range slices.Sorted(maps.Keys(k.errors)) {
			errs = append(errs, fmt.Sprintf("%s %d", why, k.errors[why]))
		}
		printf(out, "%-18s %10d %8d %10v %10v  %s\n", name, k.done, k.lost, at(0.50), at(0.99), strings.Join(errs, ", "))
	}
	for _, b := range t.broken {
		printf(out, "BROKEN %s\n", b)
	}
	return len(t.broken) + t.more
}

// printf writes to who may be gone, which the exit code does not depend on.
func printf(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }
