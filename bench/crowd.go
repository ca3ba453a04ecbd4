package main

import (
	"context"
	"slices"
)

const (
	crowdCase  = "crowd"
	crowdConns = 64
)

// crowd measures what connections that do nothing cost those that are busy: two
// daemons in turn, one of which has as many idle ones as descriptors allow.
func (cfg *config) crowd(ctx context.Context, out *report, cpus cpuPair) error {
	idle := slices.Max(append(cfg.sizes, 0))
	var all [2][]sample
	var daemons [2]*contender
	for i := range daemons {
		d, err := startDaemon(cpus, cfg.daemon)
		if err != nil {
			return err
		}
		defer d.stop()
		if d.at, err = d.open(ctx, "data", "tcp://127.0.0.1:0", echoHandler()); err != nil {
			return err
		}
		daemons[i] = d
	}
	sleeping, err := newLoad(0, nil)
	defer sleeping.close()
	if err != nil {
		return err
	}
	if err := sleeping.fill(ctx, daemons[1].at, idle); err != nil {
		return err
	}
	for range cfg.rounds {
		for i, d := range daemons {
			s, err := cfg.crowded(ctx, d)
			if err != nil {
				return err
			}
			all[i] = append(all[i], s)
		}
	}
	out.printf("\nCrowd: echo on %d connections, without and with %d idle ones on the same loop, in turn\n\n", crowdConns, idle)
	out.printf("  %-12s %10s %12s %12s %12s\n", "idle", "echo/s", "echo p50 us", "echo p99 us", "CPU us/echo")
	for i, n := range []int{0, idle} {
		out.printf("  %-12d %10s %12.0f %12.0f %12.2f\n", n, thousands(median(all[i], func(s sample) float64 { return s.rate })),
			median(all[i], func(s sample) float64 { return us(s.p50) }), median(all[i], func(s sample) float64 { return us(s.p99) }),
			median(all[i], func(s sample) float64 { return us(s.cpu) }))
	}
	over := make([]float64, cfg.rounds)
	for i := range over {
		over[i] = us(all[1][i].p99) / us(all[0][i].p99)
	}
	slices.Sort(over)
	out.printf("  p99 with over without: %.2f (%.2f - %.2f)\n", middle(over), over[0], over[len(over)-1])
	return nil
}

func (cfg *config) crowded(ctx context.Context, d *contender) (sample, error) {
	l, err := newLoad(crowdConns, checked(d.at, echoTo))
	defer l.close()
	if err != nil {
		return sample{}, err
	}
	return l.measure(ctx, d.proc.pid(), cfg.window)
}
