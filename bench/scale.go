package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	sockmgrv1 "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const (
	scaleCase   = "scale"
	scaleReads  = 5 // of the numbers; the fastest counts
	scaleMargin = 400
)

// bigAnswer lets an answer name 20,000 listeners.
var bigAnswer = grpc.MaxCallRecvMsgSize(64 << 20)

// A scaling is what one number of idle connections or of listeners costs. Times
// are the daemon's processor time: what else the machine does is not in them.
type scaling struct {
	n           int
	made        time.Duration // for each
	rss, heap   int64
	list        time.Duration // for each, with all pages
	lists       int           // of a reading: all sizes list as many in one, garbage collection included
	stats, tune time.Duration // for each; each listener with a call of its own
	turn        time.Duration // the longest while they were listed, read and tuned
	stalls      uint64        // turns above 5 ms in that time
	cpu         float64       // share of one while nothing happens
	wakes       float64       // voluntary context switches a second in that time
}

// scale opens more and more idle connections, then listeners, and measures at
// every size what they cost.
func (cfg *config) scale(ctx context.Context, out *report, cpus cpuPair) error {
	conns, err := cfg.scaleConns(ctx, cpus, cfg.sizes, cfg.hold)
	if err != nil {
		return fmt.Errorf("connections: %w", err)
	}
	printScale(out, "connections", conns)
	listeners, err := cfg.scaleListeners(ctx, cpus, cfg.sizes, cfg.hold)
	if err != nil {
		return fmt.Errorf("listeners: %w", err)
	}
	printScale(out, "listeners", listeners)
	return nil
}

// scaleSizes are those that the limit of descriptors leaves room for.
func scaleSizes(sizes ...int) (some []int) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil
	}
	for _, n := range sizes {
		if uint64(n+scaleMargin) <= limit.Max {
			some = append(some, n)
		}
	}
	return some
}

// scaleConns has them on one listener, each after one echo.
func (cfg *config) scaleConns(ctx context.Context, cpus cpuPair, sizes []int, hold time.Duration) (all []scaling, err error) {
	d, err := startDaemon(cpus, cfg.daemon)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	at, err := d.open(ctx, "scale", "tcp://127.0.0.1:0", echoHandler())
	if err != nil {
		return nil, err
	}
	l, err := newLoad(0, nil)
	defer l.close()
	if err != nil {
		return nil, err
	}
	have := 0
	for _, n := range sizes {
		begin := cpuClock(d.proc.pid())
		if err := l.fill(ctx, at, n-have); err != nil {
			return nil, err
		}
		s := scaling{n: n, lists: max(1, sizes[len(sizes)-1]/n), made: (cpuClock(d.proc.pid()) - begin) / time.Duration(n-have)}
		have = n
		if err := d.scaled(ctx, &s, hold, d.listConns, d.tuneConns); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// fillFrom is how many connections come from one address. Of the 28,000 ports that
// one has, the kernel gives clients half quickly, and looks for each of the others
// for 50 us and more: then connections come one by one, and any server takes three
// times as long for each.
const fillFrom = 5000

// nextAddress is one of the host's that nothing came from yet.
func (l *load) nextAddress() netip.Addr {
	l.addresses++
	return netip.AddrFrom4([4]byte{127, 0, 1, byte(l.addresses)})
}

// fill opens n more idle connections and waits for an echo on each.
func (l *load) fill(ctx context.Context, at netip.AddrPort, n int) error {
	before := l.latency.n
	var open opener
	l.now = clock()
	for i := range n {
		if i%fillFrom == 0 {
			open = onceTo(checked(at, echoFrom(l.nextAddress(), echoSize, 1)))
		}
		fd, c, err := open()
		if err == nil { // nothing is left of it once it is closed
			err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		if err == nil {
			err = l.add(fd, c)
		}
		if err == nil {
			err = c.start(l)
		}
		if err != nil {
			return err
		}
	}
	want := before + uint64(n)
	if err := l.turnUntil(ctx, l.now+int64(time.Minute), func() bool { return l.latency.n == want }); err != nil {
		return err
	}
	if l.latency.n != want {
		return fmt.Errorf("%d of %d connections were answered", l.latency.n-before, n)
	}
	return nil
}

// scaleListeners makes them with one Apply for each size.
func (cfg *config) scaleListeners(ctx context.Context, cpus cpuPair, sizes []int, hold time.Duration) (all []scaling, err error) {
	d, err := startDaemon(cpus, cfg.daemon)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	first, err := d.open(ctx, "first", "tcp://127.0.0.1:0", echoHandler())
	if err != nil {
		return nil, err
	}
	have := 1
	for _, n := range sizes {
		begin := cpuClock(d.proc.pid())
		if err := d.apply(ctx, have, n, first.Port()); err != nil {
			return nil, err
		}
		s := scaling{n: n, lists: max(1, sizes[len(sizes)-1]/n), made: (cpuClock(d.proc.pid()) - begin) / time.Duration(n-have)}
		have = n
		if err := d.scaled(ctx, &s, hold, d.listListeners, d.tuneListeners); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// scaled measures what is there.
func (c *contender) scaled(ctx context.Context, s *scaling, hold time.Duration, list, tune func(context.Context, int) error) error {
	stats := sockmgrv1.NewStatsServiceClient(c.conn)
	if _, err := stats.ResetPeaks(ctx, &sockmgrv1.ResetPeaksRequest{}); err != nil {
		return err
	}
	answer, err := stats.GetStats(ctx, &sockmgrv1.GetStatsRequest{})
	if err != nil {
		return err
	}
	before := answer.GetSnapshot().GetLoop().GetStalls()
	took := func(times int, f func(context.Context, int) error) (least time.Duration, err error) {
		for i := range scaleReads {
			begin := cpuClock(c.proc.pid())
			for range times {
				if err := f(ctx, s.n); err != nil {
					return 0, err
				}
			}
			if t := cpuClock(c.proc.pid()) - begin; i == 0 || t < least {
				least = t
			}
		}
		return least / time.Duration(s.n*times), nil
	}
	if s.list, err = took(s.lists, list); err != nil {
		return err
	}
	if s.stats, err = took(s.lists, func(ctx context.Context, _ int) error {
		answer, err = stats.GetStats(ctx, &sockmgrv1.GetStatsRequest{}, bigAnswer)
		return err
	}); err != nil {
		return err
	}
	if tune != nil {
		if s.tune, err = took(1, tune); err != nil {
			return err
		}
	}
	if answer, err = stats.GetStats(ctx, &sockmgrv1.GetStatsRequest{}, bigAnswer); err != nil {
		return err
	}
	loop, process := answer.GetSnapshot().GetLoop(), answer.GetSnapshot().GetProcess()
	s.turn = time.Duration(loop.GetTurnDuration().GetMax() * float64(time.Second))
	s.stalls, s.heap = loop.GetStalls()-before, int64(process.GetHeapBytes())
	return c.rested(ctx, s, hold)
}

// rested measures what it takes to do nothing.
func (c *contender) rested(ctx context.Context, s *scaling, hold time.Duration) (err error) {
	pid := c.proc.pid()
	// What the calls left behind ends first: the runtime goes to rest within a second.
	if err := pause(ctx, min(time.Second, 5*hold)); err != nil {
		return err
	}
	cpu, wakes, begin := cpuClock(pid), voluntary(pid), time.Now()
	if err := pause(ctx, hold); err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	s.cpu = (cpuClock(pid) - cpu).Seconds() / took
	s.wakes = float64(voluntary(pid)-wakes) / took
	s.rss, err = rss(pid)
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (c *contender) listConns(ctx context.Context, n int) error {
	client := sockmgrv1.NewConnectionServiceClient(c.conn)
	request := &sockmgrv1.ListConnectionsRequest{PageSize: controlPage}
	for listed := 0; ; {
		page, err := client.ListConnections(ctx, request)
		if err != nil {
			return err
		}
		listed += len(page.GetConnections())
		if request.PageToken = page.GetNextPageToken(); request.PageToken != "" {
			continue
		}
		if listed != n {
			return fmt.Errorf("listed %d of %d", listed, n)
		}
		return nil
	}
}

func (c *contender) listListeners(ctx context.Context, n int) error {
	listed, _, err := listAll(ctx, sockmgrv1.NewListenerServiceClient(c.conn))
	if err == nil && listed != n {
		err = fmt.Errorf("listed %d of %d", listed, n)
	}
	return err
}

// tuneConns changes an option of every open connection, in the kernel.
func (c *contender) tuneConns(ctx context.Context, _ int) error {
	for _, on := range []bool{true, false} {
		answer, err := sockmgrv1.NewTuningServiceClient(c.conn).SetOptions(ctx, &sockmgrv1.SetOptionsRequest{
			Target: "listeners/scale", Options: map[string]*structpb.Value{"tcp.keepalive": structpb.NewBoolValue(on)},
			Scope: sockmgrv1.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS,
		}, bigAnswer)
		if err != nil {
			return err
		}
		if len(answer.GetResults()) == 0 {
			return errors.New("nothing was tuned")
		}
	}
	return nil
}

// tuneListeners changes an option of every listener, in the kernel.
func (c *contender) tuneListeners(ctx context.Context, n int) error {
	c.backlog++ // another than the last time
	client := sockmgrv1.NewTuningServiceClient(c.conn)
	for i := 1; i < n; i++ {
		if _, err := client.SetOptions(ctx, &sockmgrv1.SetOptionsRequest{
			Target: "listeners/" + listenerID(i), Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(float64(c.backlog))},
		}); err != nil {
			return err
		}
	}
	return nil
}

// apply makes listeners from number `from` to below `to` in one call.
func (c *contender) apply(ctx context.Context, from, to int, port uint16) error {
	request := &sockmgrv1.ApplyListenersRequest{Manager: "bench", Atomic: true}
	for i := from; i < to; i++ {
		request.Listeners = append(request.Listeners, &sockmgrv1.Listener{
			Name: "listeners/" + listenerID(i), Spec: &sockmgrv1.ListenerSpec{Listen: []string{controlAddress(i, port)}, Handler: echoHandler()},
		})
	}
	answer, err := sockmgrv1.NewListenerServiceClient(c.conn).ApplyListeners(ctx, request, bigAnswer)
	if err == nil && len(answer.GetChanges()) != to-from {
		err = fmt.Errorf("%d of %d were made", len(answer.GetChanges()), to-from)
	}
	return err
}

// printScale prints what each size cost, and what a million would by the slope
// from the first to the last.
func printScale(out *report, what string, all []scaling) {
	out.printf("\nScale: %s on one loop; times are the daemon's processor time for each\n\n", what)
	out.printf("  %8s %10s %10s %10s %10s %10s %10s %10s %8s %9s %9s\n", what[:5], "make us", "RSS KiB", "heap KiB", "list us", "stats us", "tune us", "turn ms", ">5 ms", "idle CPU", "wakes/s")
	for _, s := range all {
		out.printf("  %8d %10.1f %10d %10d %10.2f %10.2f %10.2f %10.2f %8d %8.3f%% %9.1f\n", s.n, us(s.made), s.rss>>10, s.heap>>10, us(s.list),
			us(s.stats), us(s.tune), us(s.turn)/1e3, s.stalls, 100*s.cpu, s.wakes)
	}
	if len(all) < 2 {
		return
	}
	a, b := all[0], all[len(all)-1]
	each := slope(a, b)
	out.printf("  for each: %.0f bytes of RSS; a million: %.0f MiB, and %.1f s of processor time to list\n", each, each*1e6/(1<<20), b.list.Seconds()*1e6)
}

// slope is the resident memory that each one more costs.
func slope(a, b scaling) float64 { return float64(b.rss-a.rss) / float64(b.n-a.n) }
