package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A Screen is a terminal that is drawn on.
type Screen struct {
	// Size is in columns and rows.
	Size func() (width, height int, err error)
	// Keys makes keys come one by one, without echo, until restore is called.
	// Nil: nobody types.
	Keys func() (restore func() error, err error)
}

func (a *app) topCommand() *cobra.Command {
	var interval time.Duration
	var once bool
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch loop, process and listeners, the busiest first",
		Long: "top redraws the terminal at an interval until q or Ctrl-C. Where standard output is no terminal, and with\n" +
			"--once, it prints one frame and ends. With -o json it prints a snapshot a line.",
		Example: "  sockctl top\n" +
			"  sockctl top --interval 200ms\n" +
			"  sockctl top --once",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().DurationVar(&interval, "interval", time.Second, "time between two frames, at least 100ms")
	c.Flags().BoolVar(&once, "once", false, "one frame, as where standard output is no terminal")
	must(c.RegisterFlagCompletionFunc("interval", cobra.NoFileCompletions))
	c.RunE = a.run(func(ctx context.Context, _ []string) error {
		if interval < 100*time.Millisecond || interval > time.Hour {
			return usagef("--interval must be from 100ms to 1h")
		}
		if once || a.env.Screen == nil {
			return a.topOnce(ctx)
		}
		return a.top(ctx, interval)
	})
	return c
}

func (a *app) topOnce(ctx context.Context) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	resp, err := api.stats.GetStats(ctx, &pb.GetStatsRequest{})
	if err != nil {
		return err
	}
	return a.printFrame(frame{now: resp.GetSnapshot()})
}

// errQuit is the key q.
var errQuit = errors.New("quit")

// top draws until a key, a signal or the daemon ends it, and leaves the terminal
// as it was: the last frame stays.
func (a *app) top(ctx context.Context, interval time.Duration) (err error) {
	api, err := a.dial()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP) // or the terminal would stay as it is
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := a.structured() || a.output == "name"
	if keys := a.env.Screen.Keys; keys != nil && !lines {
		restore, err := keys()
		if err != nil {
			return fmt.Errorf("preparing the terminal: %w", err)
		}
		defer func() {
			if failed := restore(); err == nil && failed != nil {
				err = fmt.Errorf("restoring the terminal: %w", failed)
			}
		}()
		go a.readKeys(cancel) // left behind in its read: the process is about to end
	}
	stream, err := api.stats.WatchStats(ctx, &pb.WatchStatsRequest{Interval: durationpb.New(interval)})
	if err != nil {
		return whyEnded(ctx, api, err)
	}
	var f frame
	for first := true; ; first = false {
		r, err := stream.Recv()
		if err != nil {
			return whyEnded(ctx, api, err)
		}
		f.before, f.now = f.now, r.GetSnapshot()
		if lines {
			err = a.printFrame(f)
		} else {
			err = a.draw(f, first)
		}
		if err != nil {
			return err
		}
	}
}

// whyEnded tells a key from a signal, and both from the daemon.
func whyEnded(ctx context.Context, api *client, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errQuit):
		return nil
	case cause != nil:
		return &failure{exit: exitInterrupted, message: "interrupted"}
	case errors.Is(err, io.EOF):
		return failf(codes.Unavailable, "the daemon at %s ended the watch", api.addr)
	}
	return err
}

// readKeys is needed because a terminal that gives keys one by one makes no
// signal of Ctrl-C.
func (a *app) readKeys(cancel context.CancelCauseFunc) {
	var key [1]byte
	for {
		if _, err := a.env.Stdin.Read(key[:]); err != nil {
			cancel(errQuit) // nobody is there any more
			return
		}
		switch key[0] {
		case 'q', 'Q':
			cancel(errQuit)
			return
		case 3:
			cancel(context.Canceled)
			return
		}
	}
}

// Of ECMA-48: what a frame is drawn with. One write a frame, over what was
// there: nothing flickers.
const (
	clearAll  = "\x1b[2J"
	home      = "\x1b[H"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
)

// draw draws a frame that fits.
func (a *app) draw(f frame, first bool) error {
	width, height, err := a.env.Screen.Size()
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	var text, out bytes.Buffer
	f.write(&text, height-1, a.output == "wide")
	if first {
		out.WriteString(clearAll)
	}
	out.WriteString(home)
	for line := range strings.Lines(text.String()) {
		runes := []rune(strings.TrimSuffix(line, "\n"))
		out.WriteString(string(runes[:min(len(runes), width)]) + clearLine + "\r\n")
	}
	out.WriteString(clearRest)
	if _, err := a.env.Stdout.Write(out.Bytes()); err != nil {
		return fmt.Errorf("drawing: %w", err)
	}
	return nil
}

func (a *app) printFrame(f frame) error { return a.printLine(f.view()) }

// A frame is what top shows at one time.
type frame struct {
	now, before *pb.Snapshot // before is nil of the first
}

// view is a frame with all listeners.
func (f frame) view() view {
	v := view{tree: func() any { return tree(f.now) }}
	for _, l := range f.sorted() {
		v.names = append(v.names, listenerID(l.GetName()))
	}
	v.text = func(w *bytes.Buffer, wide bool) { f.write(w, 0, wide) }
	return v
}

// write writes up to so many rows; 0 is all.
func (f frame) write(w *bytes.Buffer, rows int, wide bool) {
	f.writeHead(w)
	all := f.sorted()
	shown := len(all)
	if rows > 0 {
		room := rows - bytes.Count(w.Bytes(), []byte("\n")) - 1 // for the head of the table
		if shown > room {
			shown = max(room-1, 0) // for what is left out
		}
	}
	head := []string{"NAME", "CONNS", "PEAK", "ACC/S", "IN/S", "OUT/S", "QUEUE", "QUEUE-PEAK", "DROPS", "REJECTED"}
	if wide {
		head = append(head, "ACCEPTED", "IN", "OUT", "ERRORS")
	}
	t := newTable(head...)
	for _, l := range all[:shown] {
		cells := []string{
			listenerID(l.GetName()), fmt.Sprint(l.GetActive()), fmt.Sprint(l.GetActivePeak()), speed(l.GetAcceptRate().GetPerSecond_1S()),
			byteSpeed(l.GetReceiveRate().GetPerSecond_1S()), byteSpeed(l.GetSendRate().GetPerSecond_1S()),
			queueText(l.GetAcceptQueue(), l.GetAcceptQueueLimit()), fmt.Sprint(l.GetAcceptQueuePeak()),
			fmt.Sprint(l.GetDropsTotal()), fmt.Sprint(sumOf(l.GetRejected())),
		}
		if wide {
			cells = append(cells, fmt.Sprint(l.GetAccepted()), size(l.GetReceivedBytes()), size(l.GetSentBytes()), countsText(l.GetErrors()))
		}
		t.row(cells...)
	}
	t.write(w)
	if rest := len(all) - shown; rest > 0 {
		fmt.Fprintf(w, "and %d more\n", rest)
	}
}

// writeHead says how loop, process and network do.
func (f frame) writeHead(w *bytes.Buffer) {
	loop, process, network := f.now.GetLoop(), f.now.GetProcess(), f.now.GetNetwork()
	turns := loop.GetTurnDuration()
	if f.before != nil { // of the time since the last frame
		turns = since(turns, f.before.GetLoop().GetTurnDuration())
	}
	head := [][]string{
		{
			"loop", percent(loop.GetBusyRatio()) + " busy", speed(loop.GetTurnRate().GetPerSecond_1S()) + " turns/s", "p99 turn " + quantileText(turns, 0.99),
			"longest " + span(loop.GetTurnDuration().GetMax()), plural(loop.GetStalls(), "stall"), loop.GetPoller(),
		},
		{
			"process", percent(process.GetCpuRatio()) + " CPU", size(process.GetResidentBytes()) + " resident",
			fmt.Sprintf("%d of %d files", process.GetOpenFiles(), process.GetOpenFilesLimit()), plural(uint64(process.GetGoroutines()), "goroutine"),
		},
		{
			"network", plural(network.GetListenOverflows(), "overflow"), plural(network.GetListenDrops(), "drop"),
			fmt.Sprintf("%d SYN cookies", network.GetSynCookiesSent()), fmt.Sprintf("%d retransmitted", network.GetRetransmittedSegments()),
		},
	}
	for i, l := range f.now.GetLoops() {
		head = append(head, []string{
			fmt.Sprint("loop ", i), percent(l.GetBusyRatio()) + " busy", speed(l.GetTurnRate().GetPerSecond_1S()) + " turns/s", plural(l.GetConnections(), "connection"),
			"longest " + span(l.GetTurnDuration().GetMax()), plural(l.GetStalls(), "stall"),
		})
	}
	layOut(w, "", head)
	w.WriteByte('\n')
}

// sorted has the busiest first.
func (f frame) sorted() []*pb.ListenerStats {
	bytesPerSecond := func(l *pb.ListenerStats) float64 {
		return l.GetReceiveRate().GetPerSecond_1S() + l.GetSendRate().GetPerSecond_1S()
	}
	all := slices.Clone(f.now.GetListeners())
	slices.SortStableFunc(all, func(a, b *pb.ListenerStats) int { // they come in order of their names
		return cmp.Or(
			cmp.Compare(bytesPerSecond(b), bytesPerSecond(a)),
			cmp.Compare(b.GetAcceptRate().GetPerSecond_1S(), a.GetAcceptRate().GetPerSecond_1S()),
			cmp.Compare(b.GetActive(), a.GetActive()),
			cmp.Compare(b.GetAcceptQueue(), a.GetAcceptQueue()),
		)
	})
	return all
}
