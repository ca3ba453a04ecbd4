package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const (
	applyCase = "apply"
	applyMost = 10_000
	applyWarm = 100 // that are made before, so that the daemon has read its own code
)

// An applied is what one way to open the sockets took, for each.
type applied struct{ wall, cpu time.Duration }

// apply makes 10,000 listeners in one call, with a store and without, beside a
// program that opens the same sockets and does nothing else. The daemon has the
// server's processor, as everywhere, and then all.
func (cfg *config) apply(ctx context.Context, out *report, cpus cpuPair) error {
	count := min(applyMost, slices.Max(append(scaleSizes(200, 1000, 5000, 10_000), 0)))
	if count == 0 {
		return fmt.Errorf("too few descriptors: see ulimit -n")
	}
	var bare, memory, disk, spread []applied
	for range cfg.rounds {
		one, err := cfg.openBare(ctx, cpus, count)
		if err != nil {
			return err
		}
		bare = append(bare, one)
		if one, err = cfg.applyOnce(ctx, cpus, "memory", count); err != nil {
			return err
		}
		memory = append(memory, one)
		if one, err = cfg.applyStored(ctx, cpus, count); err != nil {
			return err
		}
		disk = append(disk, one)
		if one, err = cfg.applyStored(ctx, cpuPair{server: anyCPU, load: cpus.load}, count); err != nil {
			return err
		}
		spread = append(spread, one)
	}
	out.printf("\nApply: %d listeners (tcp, echo) in one call, beside a program that opens the same sockets\n\n", count)
	out.printf("  %-22s %12s %16s   %s\n", "", "us for each", "CPU us for each", "time over the bare sockets: median (least - most)")
	for _, row := range []struct {
		name string
		all  []applied
	}{{"bare sockets", bare}, {"sockmgr, in memory", memory}, {"sockmgr, with a store", disk}, {"same, all processors", spread}} {
		over := make([]float64, len(row.all))
		for i, a := range row.all {
			over[i] = us(a.wall) / us(bare[i].wall)
		}
		slices.Sort(over)
		out.printf("  %-22s %12.1f %16.1f   %.2f (%.2f - %.2f)\n", row.name, median(row.all, func(a applied) float64 { return us(a.wall) }),
			median(row.all, func(a applied) float64 { return us(a.cpu) }), middle(over), over[0], over[len(over)-1])
	}
	return nil
}

// applyStored is applyOnce with a store that is new.
func (cfg *config) applyStored(ctx context.Context, cpus cpuPair, count int) (applied, error) {
	dir, err := os.MkdirTemp(cfg.stateIn, "sockmgr-bench-state-")
	if err != nil {
		return applied{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return cfg.applyOnce(ctx, cpus, dir, count)
}

// applyOnce is one call to a daemon that has just begun.
func (cfg *config) applyOnce(ctx context.Context, cpus cpuPair, state string, count int) (a applied, err error) {
	d, err := startDaemonWith(cpus, cfg.daemon, daemonSetup{state: state})
	if err != nil {
		return a, err
	}
	defer d.stop()
	client := sockmgrv1.NewListenerServiceClient(d.conn)
	if _, err := client.ApplyListeners(ctx, applyRequest("warm", -applyWarm, 0)); err != nil {
		return a, err
	}
	request := applyRequest("bench", 0, count)
	cpu, begin := cpuClock(d.proc.pid()), time.Now()
	answer, err := client.ApplyListeners(ctx, request, bigAnswer)
	took := applied{time.Since(begin), cpuClock(d.proc.pid()) - cpu}
	if err == nil && len(answer.GetChanges()) != count {
		err = fmt.Errorf("%d of %d were made", len(answer.GetChanges()), count)
	}
	return applied{took.wall / time.Duration(count), took.cpu / time.Duration(count)}, err
}

// applyRequest wishes for listeners at the addresses that perf's cref and openBare
// take: one address and a port for each.
func applyRequest(owner string, from, to int) *sockmgrv1.ApplyListenersRequest {
	request := &sockmgrv1.ApplyListenersRequest{Manager: owner, Atomic: true}
	for i := from; i < to; i++ {
		request.Listeners = append(request.Listeners, &sockmgrv1.Listener{
			Name: fmt.Sprintf("listeners/apply-%05d", i+applyWarm), Spec: &sockmgrv1.ListenerSpec{
				Listen: []string{fmt.Sprintf("tcp://127.3.0.1:%d", applyPort+i)}, Handler: echoHandler(),
			},
		})
	}
	return request
}

// openBare runs the program that opens the sockets alone.
func (cfg *config) openBare(ctx context.Context, cpus cpuPair, count int) (a applied, err error) {
	self, err := os.Executable()
	if err != nil {
		return a, err
	}
	argv := []string{pinCommand, strconv.Itoa(cpus.server), self, bareCommand, strconv.Itoa(count)}
	if cfg.reference != "" {
		argv = []string{pinCommand, strconv.Itoa(cpus.server), cfg.reference, "listeners", strconv.Itoa(count)}
	}
	text, err := exec.CommandContext(ctx, self, argv...).Output()
	if err != nil {
		return a, fmt.Errorf("%v: %w", argv[2:], err)
	}
	var said struct {
		Opened int     `json:"opened"`
		Each   float64 `json:"open_us"`
		CPU    float64 `json:"open_cpu_us"` // not of cref: one thread that never waits
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return a, err
	}
	if said.Opened != count {
		return a, fmt.Errorf("%v opened %d of %d", argv[2:], said.Opened, count)
	}
	if said.CPU == 0 {
		said.CPU = said.Each
	}
	return applied{time.Duration(said.Each * 1e3), time.Duration(said.CPU * 1e3)}, nil
}
