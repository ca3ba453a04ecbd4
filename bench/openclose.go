package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const (
	openCloseCase  = "open-close"
	openCloseConns = 8 // the daemon takes 5,000 calls a second of each
)

// A calling is how many calls a second came through, and what each took.
type calling struct {
	rate, p50, p99 float64 // us
	cpu            float64 // us of the server for each
}

// openClose has 32 callers open and close listeners, beside empty calls to a
// grpc-go server that does nothing, and beside the cheapest call to the daemon.
func (cfg *config) openClose(ctx context.Context, out *report, cpus cpuPair) error {
	names := []string{"empty call, bare server", "health check, sockmgr", "open or close, in memory", "open or close, with a store"}
	all := make([][]calling, len(names))
	for range cfg.rounds {
		for i, run := range []func(context.Context, cpuPair) (calling, error){
			cfg.emptyCalls, cfg.healthCalls, cfg.openCloseMemory, cfg.openCloseStored,
		} {
			c, err := run(ctx, cpus)
			if err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
			all[i] = append(all[i], c)
		}
	}
	out.printf("\nOpen and close: %d callers on %d connections; a listener takes two calls, and each is acknowledged once it is in the store\n\n", controlCallers, openCloseConns)
	out.printf("  %-28s %10s %10s %10s %10s   %s\n", "", "calls/s", "p50 us", "p99 us", "CPU us", "over the empty calls: median (least - most)")
	for i, name := range names {
		over := make([]float64, len(all[i]))
		for j, c := range all[i] {
			over[j] = c.rate / all[0][j].rate
		}
		slices.Sort(over)
		out.printf("  %-28s %10s %10.0f %10.0f %10.1f   %.2f (%.2f - %.2f)\n", name, thousands(median(all[i], func(c calling) float64 { return c.rate })),
			median(all[i], func(c calling) float64 { return c.p50 }), median(all[i], func(c calling) float64 { return c.p99 }),
			median(all[i], func(c calling) float64 { return c.cpu }), middle(over), over[0], over[len(over)-1])
	}
	return nil
}

// emptyCalls measures what grpc-go takes alone.
func (cfg *config) emptyCalls(ctx context.Context, cpus cpuPair) (c calling, err error) {
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	dir, err := os.MkdirTemp("", "sockmgr-bench-")
	if err != nil {
		return c, err
	}
	at := filepath.Join(dir, "empty.sock")
	p, _, err := startProcess(cpus.server, self, emptyCommand, at)
	if err != nil {
		return c, errors.Join(err, os.RemoveAll(dir))
	}
	p.dir = dir
	defer p.stop()
	conns, end, err := dialAll("unix://" + at)
	if err != nil {
		return c, err
	}
	defer end()
	return cfg.callFor(ctx, p.pid(), func(ctx context.Context, i int) (int, error) {
		return 1, conns[i%len(conns)].Invoke(ctx, emptyMethod, &emptypb.Empty{}, &emptypb.Empty{})
	})
}

// dialAll makes connections for the callers to share.
func dialAll(target string) (conns []*grpc.ClientConn, end func(), err error) {
	end = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	for range openCloseConns {
		c, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			end()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, end, nil
}

func (cfg *config) healthCalls(ctx context.Context, cpus cpuPair) (c calling, err error) {
	d, err := startDaemon(cpus, cfg.daemon)
	if err != nil {
		return c, err
	}
	defer d.stop()
	conns, end, err := dialAll(d.conn.Target())
	if err != nil {
		return c, err
	}
	defer end()
	return cfg.callFor(ctx, d.proc.pid(), func(ctx context.Context, i int) (int, error) {
		_, err := healthpb.NewHealthClient(conns[i%len(conns)]).Check(ctx, &healthpb.HealthCheckRequest{})
		return 1, err
	})
}

func (cfg *config) openCloseMemory(ctx context.Context, cpus cpuPair) (calling, error) {
	return cfg.openCloseOn(ctx, cpus, "memory")
}

func (cfg *config) openCloseStored(ctx context.Context, cpus cpuPair) (c calling, err error) {
	dir, err := os.MkdirTemp(cfg.stateIn, "sockmgr-bench-state-")
	if err != nil {
		return c, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return cfg.openCloseOn(ctx, cpus, dir)
}

func (cfg *config) openCloseOn(ctx context.Context, cpus cpuPair, state string) (c calling, err error) {
	d, err := startDaemonWith(cpus, cfg.daemon, daemonSetup{state: state})
	if err != nil {
		return c, err
	}
	defer d.stop()
	conns, end, err := dialAll(d.conn.Target())
	if err != nil {
		return c, err
	}
	defer end()
	var names atomic.Int64
	return cfg.callFor(ctx, d.proc.pid(), func(ctx context.Context, i int) (int, error) {
		client := sockmgrv1.NewListenerServiceClient(conns[i%len(conns)])
		id := fmt.Sprintf("open-close-%d", names.Add(1))
		_, err := client.CreateListener(ctx, &sockmgrv1.CreateListenerRequest{ListenerId: id, Listener: &sockmgrv1.Listener{
			Spec: &sockmgrv1.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: echoHandler()},
		}})
		if err == nil {
			_, err = client.DeleteListener(ctx, &sockmgrv1.DeleteListenerRequest{Name: "listeners/" + id, DrainTimeout: durationpb.New(0)})
		}
		return 2, err
	})
}

// callFor calls from controlCallers goroutines for the window, after a tenth of it
// that does not count. call returns how many calls it made.
func (cfg *config) callFor(ctx context.Context, pid int, call func(ctx context.Context, caller int) (int, error)) (c calling, err error) {
	var (
		group  sync.WaitGroup
		count  atomic.Int64
		stop   atomic.Bool
		failed [controlCallers]error
		times  [controlCallers][]time.Duration
	)
	for i := range controlCallers {
		group.Go(func() {
			for !stop.Load() && failed[i] == nil {
				begin := time.Now()
				n, err := call(ctx, i)
				failed[i] = err
				count.Add(int64(n))
				times[i] = append(times[i], time.Since(begin)/time.Duration(n))
			}
		})
	}
	err = pause(ctx, cfg.window/10)
	before, cpu, begin := count.Load(), cpuClock(pid), time.Now()
	err = errors.Join(err, pause(ctx, cfg.window))
	made, used, took := count.Load()-before, cpuClock(pid)-cpu, time.Since(begin)
	stop.Store(true)
	group.Wait()
	if err = errors.Join(err, errors.Join(failed[:]...)); err != nil || made == 0 {
		return c, err
	}
	each := slices.Sorted(slices.Values(slices.Concat(times[:]...)))
	return calling{
		rate: float64(made) / took.Seconds(), cpu: us(used) / float64(made), p50: us(middle(each)), p99: us(each[len(each)*99/100]),
	}, nil
}
