package main

import (
	"context"
	"time"
)

const restCase = "rest"

// rest measures what a daemon costs that has nothing to do: empty, with a listener,
// after a load, and with four loops.
func (cfg *config) rest(ctx context.Context, out *report, cpus cpuPair) error {
	out.printf("\nRest: a daemon that has nothing to do, for %v: voluntary context switches and processor time of all its threads\n\n", cfg.hold)
	out.printf("  %-40s %12s %12s\n", "", "wakes/s", "CPU")
	for _, setup := range []struct {
		daemonSetup
		steps []restStep
	}{
		{steps: []restStep{{"empty", nil}, {"one listener", (*contender).restOpen}, {"one listener, after a load", (*contender).restLoad}}},
		{daemonSetup: daemonSetup{flags: []string{"--loops", "4"}}, steps: []restStep{{"--loops 4, empty", nil}, {"--loops 4, one listener", (*contender).restOpen}}},
	} {
		if err := cfg.restOf(ctx, out, cpus, setup.daemonSetup, setup.steps); err != nil {
			return err
		}
	}
	return nil
}

// A restStep is what is done before the daemon is watched.
type restStep struct {
	what string
	do   func(*contender, context.Context) error
}

func (cfg *config) restOf(ctx context.Context, out *report, cpus cpuPair, setup daemonSetup, steps []restStep) error {
	d, err := startDaemonWith(cpus, cfg.daemon, setup)
	if err != nil {
		return err
	}
	defer d.stop()
	for _, step := range steps {
		if step.do != nil {
			if err := step.do(d, ctx); err != nil {
				return err
			}
		}
		var s scaling
		if err := d.rested(ctx, &s, cfg.hold); err != nil {
			return err
		}
		out.printf("  %-40s %12.1f %11.3f%%\n", step.what, s.wakes, 100*s.cpu)
	}
	return nil
}

func (c *contender) restOpen(ctx context.Context) (err error) {
	c.at, err = c.open(ctx, "rest", "tcp://127.0.0.1:0", echoHandler())
	return err
}

func (c *contender) restLoad(ctx context.Context) error {
	l, err := newLoad(1, checked(c.at, echoTo))
	defer l.close()
	if err == nil {
		_, err = l.measure(ctx, c.proc.pid(), time.Second)
	}
	return err
}
