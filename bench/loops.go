package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
)

const loopsCase = "loops"

// loops measures daemons with one loop and with two, which may run on all CPUs, in
// turn. That with one runs twice: what the second differs by is noise.
func (cfg *config) loops(ctx context.Context, out *report, cpus cpuPair) error {
	cpus.server = anyCPU
	names := []string{"--loops 1", "--loops 1 again", "--loops 2"}
	var all []*contender
	defer func() { stopAll(all) }()
	for _, n := range []int{1, 1, 2} {
		d, err := startDaemonWith(cpus, cfg.daemon, daemonSetup{flags: []string{"--loops", strconv.Itoa(n)}})
		if err != nil {
			return err
		}
		all = append(all, d)
		if d.at, err = d.open(ctx, "loops", "tcp://127.0.0.1:0", echoHandler()); err != nil {
			return err
		}
	}
	out.printf("\nLoops: echo on 64 connections, the daemon on all CPUs, the load on CPU %d; medians of %d rounds of %v in turn\n\n", cpus.load, cfg.rounds, cfg.window)
	out.printf("  %-24s %-16s %12s %10s %10s %12s   %s\n", "load", "daemon", "answers/s", "p50 us", "p99 us", "CPU us", "rate over the first: median (least - most)")
	for _, load := range []struct {
		what string
		open func(netip.AddrPort) opener
	}{{"64 B", echoTo}, {"64 B, 16 at once", echoDeep(echoSize, 16)}, {"16 KiB", echoOf(16 << 10)}} {
		rounds := make([][]sample, len(all))
		for range cfg.rounds {
			for i, d := range all {
				s, err := cfg.tryLonger(ctx, workload{clients: 64, open: load.open}, nil, d)
				if err != nil {
					return fmt.Errorf("%s: %w", names[i], err)
				}
				rounds[i] = append(rounds[i], s)
			}
		}
		for i, r := range rounds {
			over := quotients(r, rounds[0], func(s sample) float64 { return s.rate })
			out.printf("  %-24s %-16s %12s %10.0f %10.0f %12.2f   %.2f (%.2f - %.2f)\n", load.what, names[i],
				thousands(median(r, func(s sample) float64 { return s.rate })), median(r, func(s sample) float64 { return us(s.p50) }),
				median(r, func(s sample) float64 { return us(s.p99) }), median(r, func(s sample) float64 { return us(s.cpu) }), middle(over), over[0], over[len(over)-1])
		}
	}
	return nil
}
