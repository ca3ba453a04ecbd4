package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const (
	controlCase      = "control"
	controlListeners = 10_000
	controlCallers   = 32
	controlPage      = 1000
	controlTime      = 5 * time.Minute
)

// control opens many listeners over one gRPC connection, lists and deletes
// them.
func (cfg *config) control(ctx context.Context, out *report, cpus cpuPair) error {
	ctx, cancel := context.WithTimeout(ctx, controlTime)
	defer cancel()
	daemon, err := startDaemon(cpus, cfg.daemon)
	if err != nil {
		return err
	}
	defer daemon.stop()
	client := sockmgrv1.NewListenerServiceClient(daemon.conn)
	echo := &sockmgrv1.Handler{Kind: &sockmgrv1.Handler_Echo{Echo: &sockmgrv1.EchoHandler{}}}
	first, err := daemon.open(ctx, "first", "tcp://127.0.0.1:0", echo)
	if err != nil {
		return err
	}
	port := first.Port()
	out.printf("\nControl: %d listeners (tcp://127.1.x.y:PORT, echo), one gRPC connection, %d callers\n\n", controlListeners, controlCallers)
	before, err := rss(daemon.proc.pid())
	if err != nil {
		return err
	}
	created, err := callers(ctx, func(ctx context.Context, i int) error {
		_, err := daemon.open(ctx, listenerID(i), controlAddress(i, port), echo)
		return err
	})
	if err != nil {
		return err
	}
	created.print(out, "create")
	after, err := rss(daemon.proc.pid())
	if err != nil {
		return err
	}
	out.printf("  %-8s %d bytes of RSS for each listener (%d KiB -> %d KiB)\n", "", (after-before)/controlListeners, before>>10, after>>10)
	begin := time.Now()
	listed, pages, err := listAll(ctx, client)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	out.printf("  %-8s %d in %v, %d pages of %d\n", "list", listed, took.Round(time.Millisecond), pages, controlPage)
	if listed != controlListeners+1 {
		return fmt.Errorf("listed %d of %d listeners", listed, controlListeners+1)
	}
	deleted, err := callers(ctx, func(ctx context.Context, i int) error {
		_, err := client.DeleteListener(ctx, &sockmgrv1.DeleteListenerRequest{
			Name: "listeners/" + listenerID(i), DrainTimeout: durationpb.New(0),
		})
		return err
	})
	if err != nil {
		return err
	}
	deleted.print(out, "delete")
	return nil
}

func listenerID(i int) string { return fmt.Sprintf("l%05d", i) }

// controlAddress gives every listener an address of its own, on one port. With
// port 0 it would be the kernel that is measured: once thousands are bound, it
// takes 0.7 ms to find each a free one.
func controlAddress(i int, port uint16) string {
	return fmt.Sprintf("tcp://127.1.%d.%d:%d", i/250, 1+i%250, port)
}

// callTimes is how long calls took, each and all together.
type callTimes struct {
	each []time.Duration // sorted
	all  time.Duration
}

func (t callTimes) print(out *report, what string) {
	n := len(t.each)
	out.printf("  %-8s %d in %v: %.0f/s, p50 %v, p99 %v\n", what, n, t.all.Round(time.Millisecond),
		float64(n)/t.all.Seconds(), t.each[n/2].Round(time.Microsecond), t.each[n*99/100].Round(time.Microsecond))
}

// callers makes controlListeners calls from controlCallers goroutines. The
// first error ends it.
func callers(ctx context.Context, call func(ctx context.Context, i int) error) (callTimes, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := callTimes{each: make([]time.Duration, controlListeners)}
	var (
		next  atomic.Int64
		group sync.WaitGroup
	)
	begin := time.Now()
	for range controlCallers {
		group.Go(func() {
			for i := int(next.Add(1) - 1); i < controlListeners && ctx.Err() == nil; i = int(next.Add(1) - 1) {
				start := time.Now()
				if err := call(ctx, i); err != nil {
					cancel(fmt.Errorf("call %d: %w", i, err))
				}
				t.each[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	t.all = time.Since(begin)
	slices.Sort(t.each)
	return t, context.Cause(ctx)
}

// listAll reads every page and returns how many listeners and pages there are.
func listAll(ctx context.Context, client sockmgrv1.ListenerServiceClient) (listeners, pages int, err error) {
	request := &sockmgrv1.ListListenersRequest{PageSize: controlPage}
	for {
		page, err := client.ListListeners(ctx, request)
		if err != nil {
			return listeners, pages, err
		}
		pages++
		listeners += len(page.GetListeners())
		if page.GetNextPageToken() == "" {
			return listeners, pages, nil
		}
		if pages > controlListeners {
			return listeners, pages, errors.New("pages without end")
		}
		request.PageToken = page.GetNextPageToken()
	}
}
