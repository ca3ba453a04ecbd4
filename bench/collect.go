package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	collectCase      = "collect"
	collectListeners = 1000 // so that lists leave garbage
	collectConns     = 64
)

// A collected is one window in which the daemon may have collected garbage.
type collected struct {
	data  sample
	times int
}

// A collector is a daemon that tells when it collects garbage.
type collector struct {
	*contender
	trace string // a file
}

// collect measures whether garbage collections are seen by who sends and receives:
// echo without calls, with calls that leave garbage, and with such calls to a
// daemon that never collects; in turn.
func (cfg *config) collect(ctx context.Context, out *report, cpus cpuPair) error {
	dir, err := os.MkdirTemp("", "sockmgr-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var daemons [2]collector
	for i, env := range [][]string{{"GODEBUG=gctrace=1"}, {"GODEBUG=gctrace=1", "GOGC=off"}} {
		if daemons[i], err = cfg.startCollector(ctx, cpus, filepath.Join(dir, fmt.Sprint(i)), env); err != nil {
			return err
		}
		defer daemons[i].stop()
	}
	ways := []struct {
		what  string
		d     collector
		calls bool
	}{{"no calls", daemons[0], false}, {"calls", daemons[0], true}, {"calls, no collection", daemons[1], true}}
	all := make([][]collected, len(ways))
	for range cfg.rounds {
		for i, way := range ways {
			c, err := cfg.collectOnce(ctx, cpus, way.d, way.calls)
			if err != nil {
				return fmt.Errorf("%s: %w", way.what, err)
			}
			all[i] = append(all[i], c)
		}
	}
	out.printf("\nCollections: echo on %d connections; ten lists of %d listeners and 100 GetListener a second, or none; %d rounds of %v in turn\n\n",
		collectConns, collectListeners, cfg.rounds, cfg.window)
	out.printf("  %-22s %14s %10s %10s   %s\n", "", "collections", "echo/s", "p99 us", "p99.9 us: median (least - most), and over that without collections")
	tail := func(c collected) float64 { return us(c.data.p999) }
	for i, way := range ways {
		over := quotients(all[i], all[len(all)-1], tail)
		out.printf("  %-22s %14.0f %10s %10.0f   %.0f (%.0f - %.0f), %.2f\n", way.what, median(all[i], func(c collected) float64 { return float64(c.times) }),
			thousands(median(all[i], func(c collected) float64 { return c.data.rate })), median(all[i], func(c collected) float64 { return us(c.data.p99) }),
			median(all[i], tail), least(all[i], tail), -least(all[i], func(c collected) float64 { return -tail(c) }), middle(over))
	}
	return nil
}

func (cfg *config) startCollector(ctx context.Context, cpus cpuPair, trace string, env []string) (d collector, err error) {
	file, err := os.Create(trace)
	if err != nil {
		return d, err
	}
	d.trace = trace
	d.contender, err = startDaemonWith(cpus, cfg.daemon, daemonSetup{env: env, stderr: file})
	if err = errors.Join(err, file.Close()); err != nil {
		return d, err
	}
	if d.at, err = d.open(ctx, "data", "tcp://127.0.0.1:0", echoHandler()); err == nil {
		err = d.apply(ctx, 1, collectListeners, d.at.Port())
	}
	if err != nil {
		d.stop()
	}
	return d, err
}

func (cfg *config) collectOnce(ctx context.Context, cpus cpuPair, d collector, calls bool) (c collected, err error) {
	l, err := newLoad(collectConns, checked(d.at, echoTo))
	defer l.close()
	if err != nil {
		return c, err
	}
	before, err := d.collections()
	if err != nil {
		return c, err
	}
	called := make(chan error, 1)
	if calls {
		var said callersSaid
		go func() { called <- callBeside(ctx, d.contender, cpus.load, listRate, warmUp+cfg.window, &said) }()
	} else {
		called <- nil
	}
	c.data, err = l.measure(ctx, d.proc.pid(), cfg.window)
	if err = errors.Join(err, <-called); err != nil {
		return c, err
	}
	c.times, err = d.collections()
	c.times -= before
	return c, err
}

// collections is how often it has collected: a line each.
func (d collector) collections() (int, error) {
	text, err := os.ReadFile(d.trace)
	return bytes.Count(append([]byte("\n"), text...), []byte("\ngc ")), err
}
