package main

import (
	"context"
	"errors"
	"slices"
	"time"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const (
	contentionCase  = "contention"
	changesRate     = 1000 // a second: half of them open a listener, half delete it
	changeCallers   = 8
	contentionConns = 64
)

// contended is one window with the data path busy.
type contended struct {
	data       sample
	turn, wait time.Duration // the daemon's own 99 %: how long a turn took, and a command waited
	said       callersSaid
}

// contention measures what changes cost the data path and the other way round:
// windows without and with changes in turn. The calls come from a process of their
// own on the CPU of the load, which is busy too: so the daemon's own numbers are
// given beside.
func (cfg *config) contention(ctx context.Context, out *report, cpus cpuPair) error {
	d, err := startDaemon(cpus, cfg.daemon)
	if err != nil {
		return err
	}
	defer d.stop()
	if d.at, err = d.open(ctx, "data", "tcp://127.0.0.1:0", echoHandler()); err != nil {
		return err
	}
	var all [2][]contended
	for range cfg.rounds {
		for i, rate := range []int{0, changesRate} {
			w, err := cfg.contend(ctx, cpus, d, rate)
			if err != nil {
				return err
			}
			all[i] = append(all[i], w)
		}
	}
	printContention(out, all)
	return nil
}

// contend measures one window.
func (cfg *config) contend(ctx context.Context, cpus cpuPair, d *contender, rate int) (w contended, err error) {
	stats := sockmgrv1.NewStatsServiceClient(d.conn)
	if _, err := stats.ResetPeaks(ctx, &sockmgrv1.ResetPeaksRequest{}); err != nil {
		return w, err
	}
	l, err := newLoad(contentionConns, checked(d.at, echoTo))
	defer l.close()
	if err != nil {
		return w, err
	}
	called := make(chan error, 1)
	go func() { called <- callBeside(ctx, d, cpus.load, rate, warmUp+cfg.window, &w.said) }()
	w.data, err = l.measure(ctx, d.proc.pid(), cfg.window)
	if err = errors.Join(err, <-called); err != nil {
		return w, err
	}
	answer, err := stats.GetStats(ctx, &sockmgrv1.GetStatsRequest{}, bigAnswer)
	if err != nil {
		return w, err
	}
	loop := answer.GetSnapshot().GetLoop()
	w.turn, w.wait = quantile(loop.GetTurnDuration(), 0.99), quantile(loop.GetCommandLatency(), 0.99)
	return w, nil
}

// quantile returns the bound of the bucket that has it.
func quantile(h *sockmgrv1.Histogram, q float64) time.Duration {
	need, seen := q*float64(h.GetCount()), 0.0
	for i, n := range h.GetCounts() {
		if seen += float64(n); seen >= need && i < len(h.GetBounds()) {
			return time.Duration(min(h.GetBounds()[i], h.GetMax()) * float64(time.Second))
		}
	}
	return time.Duration(h.GetMax() * float64(time.Second))
}

func printContention(out *report, all [2][]contended) {
	out.printf("\nContention: echo on %d connections, without and with %d changes a second, in turn; GetListener meanwhile\n\n", contentionConns, changesRate)
	out.printf("  %-14s %10s %12s %12s %14s %12s %12s %16s\n", "changes", "echo/s", "echo p50 us", "echo p99 us", "turn p99 us", "wait p99 us", "Get p99 us", "changes made")
	var p99 [2]float64
	for i, name := range []string{"none", "with"} {
		of := func(f func(contended) float64) float64 {
			values := make([]float64, len(all[i]))
			for j, w := range all[i] {
				values[j] = f(w)
			}
			slices.Sort(values)
			return middle(values)
		}
		p99[i] = of(func(w contended) float64 { return us(w.data.p99) })
		out.printf("  %-14s %10s %12.0f %12.0f %14.0f %12.0f %12.0f %10.0f of %.0f\n", name, thousands(of(func(w contended) float64 { return w.data.rate })),
			of(func(w contended) float64 { return us(w.data.p50) }), p99[i], of(func(w contended) float64 { return us(w.turn) }), of(func(w contended) float64 { return us(w.wait) }),
			of(func(w contended) float64 { return w.said.GetP99 }),
			of(func(w contended) float64 { return float64(w.said.Made) }), of(func(w contended) float64 { return float64(w.said.Due) }))
	}
	out.printf("  echo p99 with changes over without: %.2f\n", p99[1]/p99[0])
}
