package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

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
	data         sample
	turn, wait   time.Duration   // the daemon's own 99 %: how long a turn took, and a command waited
	gets         []time.Duration // sorted; of GetListener
	changes      int
	changesAsked int
}

// contention measures what changes cost the data path and the other way round:
// windows without and with changes in turn. The calls come from the CPU of the
// load, which is busy too: so the daemon's own numbers are given beside.
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
			w, err := cfg.contend(ctx, d, rate)
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
func (cfg *config) contend(ctx context.Context, d *contender, rate int) (w contended, err error) {
	stats := sockmgrv1.NewStatsServiceClient(d.conn)
	if _, err := stats.ResetPeaks(ctx, &sockmgrv1.ResetPeaksRequest{}); err != nil {
		return w, err
	}
	l, err := newLoad(contentionConns, checked(d.at, echoTo))
	defer l.close()
	if err != nil {
		return w, err
	}
	calling, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	var failed [2]error
	group.Go(func() { w.gets, failed[0] = gets(calling, d) })
	if rate > 0 {
		group.Go(func() { w.changes, w.changesAsked, failed[1] = changes(calling, d, rate) })
	}
	w.data, err = l.measure(ctx, d.proc.pid(), cfg.window)
	stop()
	group.Wait()
	if err = errors.Join(err, failed[0], failed[1]); err != nil {
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

// gets calls GetListener a hundred times a second until ctx ends.
func gets(ctx context.Context, d *contender) (times []time.Duration, err error) {
	client := sockmgrv1.NewListenerServiceClient(d.conn)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			slices.Sort(times)
			return times, nil
		case <-tick.C:
		}
		begin := time.Now()
		if _, err := client.GetListener(context.WithoutCancel(ctx), &sockmgrv1.GetListenerRequest{Name: "listeners/data"}); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin))
	}
}

// changes opens and deletes listeners at a rate until ctx ends, over a connection
// of its own. It returns how many were made, and how many were due.
func changes(ctx context.Context, d *contender, rate int) (made, due int, err error) {
	conn, err := grpc.NewClient(d.conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close() }()
	client := sockmgrv1.NewListenerServiceClient(conn)
	var (
		group  sync.WaitGroup
		counts [changeCallers]int
		failed [changeCallers]error
	)
	began := time.Now()
	for i := range changeCallers {
		group.Go(func() { counts[i], failed[i] = changeOne(ctx, client, i, rate/changeCallers) })
	}
	group.Wait()
	for _, n := range counts {
		made += n
	}
	return made, int(time.Since(began).Seconds() * float64(rate)), errors.Join(failed[:]...)
}

// changeOne opens and deletes one listener at a rate.
func changeOne(ctx context.Context, client sockmgrv1.ListenerServiceClient, i, rate int) (made int, err error) {
	tick := time.NewTicker(2 * time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return made, nil
		case <-tick.C:
		}
		whole, id := context.WithoutCancel(ctx), fmt.Sprintf("change-%d-%d", i, made)
		_, err := client.CreateListener(whole, &sockmgrv1.CreateListenerRequest{ListenerId: id, Listener: &sockmgrv1.Listener{
			Spec: &sockmgrv1.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: echoHandler()},
		}})
		if err == nil {
			_, err = client.DeleteListener(whole, &sockmgrv1.DeleteListenerRequest{Name: "listeners/" + id, DrainTimeout: durationpb.New(0)})
		}
		if err != nil {
			return made, err
		}
		made += 2
	}
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
			of(func(w contended) float64 {
				if len(w.gets) == 0 {
					return 0
				}
				return us(w.gets[len(w.gets)*99/100])
			}),
			of(func(w contended) float64 { return float64(w.changes) }), of(func(w contended) float64 { return float64(w.changesAsked) }))
	}
	out.printf("  echo p99 with changes over without: %.2f\n", p99[1]/p99[0])
}
