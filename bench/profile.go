package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	profileCase = "profile"
	perfRate    = "2000" // samples a second
)

// A spending is where the processor time of a server went: in all, by what the
// kernel counts, and its parts by perf's samples; us for each operation.
type spending struct {
	server string
	all    float64
	parts  map[string]float64
	calls  map[string]float64 // of the kernel's part, by system call
}

// profile says, for each workload, where the daemon's time goes and where that of
// the reference does: the program of --reference, or a Go net server.
func (cfg *config) profile(ctx context.Context, out *report, cpus cpuPair) error {
	if _, err := exec.LookPath("perf"); err != nil {
		return fmt.Errorf("%w (apt-get install linux-perf)", err)
	}
	out.printf("\nProfile: %d rounds of %v for the time of an operation, then %v of samples; us of processor time for each operation\n", cfg.rounds, cfg.window, cfg.window)
	var rows []string
	for _, w := range profiled() {
		if !slices.Contains(cfg.workloads, w.name) {
			continue
		}
		both, err := cfg.profileOf(ctx, cpus, w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		printSpending(out, w, both)
		rows = append(rows, spendingRow(w, both))
	}
	out.printf("\nWhat the daemon spends above the other, us for each operation:\n\n| workload | daemon, other | more |")
	for _, part := range parts {
		out.printf(" %s |", part)
	}
	out.printf("\n|---|---|---|")
	for range parts {
		out.printf("---|")
	}
	for _, row := range rows {
		out.printf("\n%s", row)
	}
	out.printf("\n")
	return nil
}

// profileOf measures the daemon and the reference, in turn.
func (cfg *config) profileOf(ctx context.Context, cpus cpuPair, w workload) (both [2]spending, err error) {
	b, err := openBackend()
	if err != nil {
		return both, err
	}
	defer b.close()
	d, err := startDaemon(cpus, cfg.daemon)
	if err != nil {
		return both, err
	}
	defer d.stop()
	if d.at, err = d.open(ctx, "bench", w.uri, w.handler(b)); err != nil {
		return both, err
	}
	other, err := cfg.startOther(cpus, w, b)
	if err != nil {
		return both, err
	}
	defer other.stop()
	servers := []*contender{d, other}
	best := [2]time.Duration{}
	for range cfg.rounds {
		for i, c := range servers {
			s, err := cfg.tryLonger(ctx, w, b, c)
			if err != nil {
				return both, fmt.Errorf("%s: %w", c.name, err)
			}
			if best[i] == 0 || s.cpu < best[i] {
				best[i] = s.cpu
			}
		}
	}
	for i, c := range servers {
		samples, err := cfg.record(ctx, w, b, c)
		if err != nil {
			return both, fmt.Errorf("%s: %w", c.name, err)
		}
		both[i] = spend(c.name, us(best[i]), samples)
	}
	return both, nil
}

// startOther starts what the daemon is compared with.
func (cfg *config) startOther(cpus cpuPair, w workload, b *backend) (*contender, error) {
	if cfg.reference != "" {
		return cfg.besideReference(w).start(cpus, b)
	}
	c, err := startNet(cpus, b.stream.String(), b.datagram.String())
	if err == nil {
		c.at = w.net(c)
	}
	return c, err
}

// record loads a server and has perf take samples of it meanwhile.
func (cfg *config) record(ctx context.Context, w workload, b *backend, c *contender) (samples, error) {
	dir, err := os.MkdirTemp("", "sockmgr-bench-")
	if err != nil {
		return samples{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	data, pid := filepath.Join(dir, "perf.data"), strconv.Itoa(c.proc.pid())
	perf := exec.CommandContext(ctx, "perf", "record", "-q", "-F", perfRate, "-g", "-o", data, "-p", pid, "--", "sleep", fmt.Sprint(cfg.window.Seconds()))
	recorded := make(chan error, 1)
	go func() {
		said, err := perf.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("perf record: %w: %.500s (it may need root, or sysctl kernel.perf_event_paranoid=1)", err, said)
		}
		recorded <- err
	}()
	// It goes on until perf has ended, which begins a moment later.
	_, err = cfg.try(ctx, w, b, c, cfg.window+cfg.window/2+500*time.Millisecond)
	if err = errors.Join(err, <-recorded); err != nil {
		return samples{}, err
	}
	text, err := exec.CommandContext(ctx, "perf", "script", "-i", data, "--no-inline", "-F", "ip,sym,dso").Output()
	if err != nil {
		return samples{}, fmt.Errorf("perf script: %w", err)
	}
	code, err := readCode("/proc/" + pid + "/exe")
	if err != nil {
		return samples{}, err
	}
	return parseSamples(string(text), code), nil
}

func spend(server string, all float64, s samples) spending {
	sp := spending{server: server, all: all, parts: map[string]float64{}, calls: map[string]float64{}}
	for part, n := range s.parts {
		sp.parts[part] = all * float64(n) / float64(max(1, s.n))
	}
	for call, n := range s.calls {
		sp.calls[call] = all * float64(n) / float64(max(1, s.n))
	}
	return sp
}

func printSpending(out *report, w workload, both [2]spending) {
	a, b := both[0], both[1]
	out.printf("\n  %s: %s\n  %-44s %10s %10s %10s\n", w.name, w.what, "us for each "+w.unit, a.server, b.server, "more")
	line := func(what string, x, y float64) { out.printf("  %-44s %10.3f %10.3f %10.3f\n", what, x, y, x-y) }
	line("all", a.all, b.all)
	for _, part := range parts {
		line("  "+part, a.parts[part], b.parts[part])
		if part != partKernel {
			continue
		}
		for _, group := range callGroups(both) {
			var x, y float64
			for _, call := range group.calls {
				x, y = x+a.calls[call], y+b.calls[call]
			}
			if max(x, y) >= 0.005*max(a.all, b.all) { // less is noise
				line(fmt.Sprintf("    %s (%s)", group.what, strings.Join(group.calls, ", ")), x, y)
			}
		}
	}
}

// A callGroup is system calls that do the same: one server reads where another
// receives.
type callGroup struct {
	what  string
	calls []string
}

// callGroups are those that either server made; other calls are groups of their own.
func callGroups(both [2]spending) []callGroup {
	groups := []callGroup{
		{"send", []string{"write", "writev", "sendto", "sendmsg", "sendmmsg"}},
		{"receive", []string{"read", "readv", "recvfrom", "recvmsg", "recvmmsg"}},
		{"wait", []string{"epoll_wait", "epoll_pwait", "epoll_pwait2"}},
	}
	known := func(call string) bool {
		return slices.ContainsFunc(groups, func(g callGroup) bool { return slices.Contains(g.calls, call) })
	}
	var made []string
	for _, s := range both {
		made = append(made, slices.Collect(maps.Keys(s.calls))...)
	}
	slices.Sort(made)
	made = slices.Compact(made)
	for i := range groups {
		groups[i].calls = slices.DeleteFunc(groups[i].calls, func(call string) bool { return !slices.Contains(made, call) })
	}
	for _, call := range made {
		if !known(call) {
			groups = append(groups, callGroup{"other", []string{call}})
		}
	}
	return groups
}

// spendingRow is the same in a line of a Markdown table: differences.
func spendingRow(w workload, both [2]spending) string {
	var row strings.Builder
	fmt.Fprintf(&row, "| %s | %.2f, %.2f | %+.2f |", w.name, both[0].all, both[1].all, both[0].all-both[1].all)
	for _, part := range parts {
		fmt.Fprintf(&row, " %+.2f |", both[0].parts[part]-both[1].parts[part])
	}
	return row.String()
}
