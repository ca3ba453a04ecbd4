package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A report is written as it comes. The first error is kept.
type report struct {
	w   io.Writer
	err error
}

func (r *report) printf(format string, args ...any) {
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.w, format, args...)
	}
}

// printMachine says what the numbers were made on.
func printMachine(out *report, cpus cpuPair) {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // an empty release is no reason to stop
	out.printf("%s, Linux %s, %s, %s\n", cpuModel(), unix.ByteSliceToString(uts.Release[:]), goVersion(),
		time.Now().Format(time.DateOnly))
	if cpus.shared {
		out.printf("ONE CPU ONLY: server and load share CPU %d, the numbers say little\n", cpus.load)
		return
	}
	out.printf("server on CPU %d, load on CPU %d\n", cpus.server, cpus.load)
}

func goVersion() string { return runtime.Version() }

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

func printTrafficHead(out *report) {
	out.printf("  %-40s %-8s %10s %10s %10s %11s   %s\n", "case", "server", "req/s", "p50 us", "p99 us", "CPU us/req", "ratio of req/s")
}

// printTraffic prints a line for each contender. The ratio is that of the
// first, the daemon, to the last.
func printTraffic(out *report, tc trafficCase, all []*contender, results [][]sample) {
	var notes []string
	what := tc.what
	for i, c := range all {
		rounds := results[i]
		ratio := ""
		if i == 0 && len(all) > 1 {
			ratio = ratios(rounds, results[len(all)-1])
		}
		out.printf("  %-40s %-8s %10s %10.0f %10.0f %11.2f   %s\n", what, c.name,
			thousands(median(rounds, func(s sample) float64 { return s.rate })),
			median(rounds, func(s sample) float64 { return us(s.p50) }),
			median(rounds, func(s sample) float64 { return us(s.p99) }),
			median(rounds, func(s sample) float64 { return us(s.cpu) }), ratio)
		what = ""
		notes = append(notes, doubts(c.name, rounds)...)
	}
	for _, n := range notes {
		out.printf("    note: %s\n", n)
	}
}

// doubts says what makes the rounds of a server less worth.
func doubts(name string, rounds []sample) []string {
	var (
		notes   []string
		lost    uint64
		starved int
	)
	for _, s := range rounds {
		lost += s.lost
		starved += s.starved
	}
	if lost > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d datagrams lost", name, lost))
	}
	if starved > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d connections got no answer at all", name, starved))
	}
	if others := median(rounds, func(s sample) float64 { return s.others }); others > 0.1 {
		return append(notes, fmt.Sprintf("%s: other processes used %.0f %% of a CPU meanwhile", name, 100*others))
	}
	if busy := median(rounds, func(s sample) float64 { return s.rate * s.cpu.Seconds() }); busy < 0.9 {
		notes = append(notes, fmt.Sprintf("%s: used %.0f %% of its CPU, so the load was the limit: look at the CPU for each", name, 100*busy))
	}
	return notes
}

// ratios is the median of the ratios of each round, with the least and most.
func ratios(a, b []sample) string {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i].rate / b[i].rate
	}
	slices.Sort(r)
	return fmt.Sprintf("%.2f [%.2f-%.2f]", middle(r), r[0], r[len(r)-1])
}

func median[T any](rounds []T, of func(T) float64) float64 {
	values := make([]float64, len(rounds))
	for i, s := range rounds {
		values[i] = of(s)
	}
	slices.Sort(values)
	return middle(values)
}

// middle is the median of sorted values.
func middle[T cmp.Ordered](sorted []T) T { return sorted[len(sorted)/2] }

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// thousands writes a number as people read it: 123,456.
func thousands(f float64) string {
	s := strconv.FormatInt(int64(f), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
