package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// drainFlags say how long connections may take to finish.
type drainFlags struct {
	now  bool
	time time.Duration
	cmd  *cobra.Command
}

func (d *drainFlags) register(c *cobra.Command, withTime bool) {
	d.cmd = c
	c.Flags().BoolVar(&d.now, "now", false, "close open connections at once")
	if withTime {
		c.Flags().DurationVar(&d.time, "drain", 0, "time that open connections have to finish (default: as defined, else 5s)")
		c.MarkFlagsMutuallyExclusive("now", "drain")
	}
}

// timeout is what goes into a request: nil leaves it to the daemon.
func (d *drainFlags) timeout() (*durationpb.Duration, error) {
	if d.time < 0 {
		return nil, usagef("--drain cannot be negative")
	}
	if !d.now && !d.cmd.Flags().Changed("drain") {
		return nil, nil
	}
	return durationpb.New(d.time), nil
}

func (a *app) stopCommand() *cobra.Command {
	var drain drainFlags
	var noWait bool
	c := &cobra.Command{
		Use:   "stop NAME...",
		Short: "Stop listeners: not bound any more, still defined",
		Example: "  sockctl stop web\n" +
			"  sockctl stop web api --drain 30s",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeListeners,
	}
	drain.register(c, true)
	c.Flags().BoolVar(&noWait, "no-wait", false, "return while connections finish")
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		timeout, err := drain.timeout()
		if err != nil {
			return err
		}
		return a.end(ctx, args, ending{
			noWait: noWait,
			call: func(ctx context.Context, api *client, name string) (*pb.Listener, error) {
				resp, err := api.listeners.StopListener(ctx, &pb.StopListenerRequest{Name: name, DrainTimeout: timeout})
				return resp.GetListener(), err
			},
			over: func(asked *pb.Listener) goal { return stopped(listenerID(asked.GetName())) },
			word: "stopped",
		})
	})
	return c
}

// stopped is reached when a listener that was told to stop has.
func stopped(id string) goal {
	return func(l *pb.Listener) (bool, error) {
		switch {
		case l == nil:
			return false, gone(id)
		case l.GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED:
			return true, nil
		case l.GetSpec().GetDesiredState() != pb.ListenerSpec_DESIRED_STATE_STOPPED:
			return false, failf(codes.Aborted, "%s: someone started it again", id)
		}
		return false, nil
	}
}

// An ending is stop, drain or rm: a call that begins it and a wait until it is over.
type ending struct {
	noWait bool
	call   func(ctx context.Context, api *client, name string) (*pb.Listener, error)
	over   func(asked *pb.Listener) goal
	word   string // for a listener with which it is over
}

// end begins all endings before it waits for any, so that they drain together.
func (a *app) end(ctx context.Context, ids []string, e ending) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	b := &batch{a: a}
	f := &follower{
		a:       a,
		goals:   map[string]goal{},
		last:    map[string]*pb.Listener{},
		reached: func(_ string, last *pb.Listener) error { return b.ok(last, e.word) },
		failed:  b.fail,
	}
	var left time.Duration
	for _, id := range unique(ids) {
		l, err := e.call(ctx, api, listenerName(id))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.fail(id, err)
			continue
		}
		left = max(left, a.drainLeft(l))
		if err := e.begun(b, f, id, l); err != nil {
			return err
		}
	}
	ctx, cancel := a.within(ctx, left)
	defer cancel()
	if err := f.follow(ctx); err != nil {
		return err
	}
	return b.finish()
}

// begun settles what is over with the answer to the call, or not waited for;
// the rest is for the follower.
func (e *ending) begun(b *batch, f *follower, id string, l *pb.Listener) error {
	if l == nil { // was not there, and that was no error
		b.done++
		return nil
	}
	reached := e.over(l)
	if over, err := reached(l); err == nil && over {
		return b.ok(l, e.word)
	}
	if e.noWait {
		return b.ok(l, word(l.GetStatus().GetState()))
	}
	f.goals[id], f.last[id] = reached, l
	return nil
}

// unique returns the ids without their prefix, each once.
func unique(names []string) []string {
	var ids []string
	for _, name := range names {
		if id := listenerID(name); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}
