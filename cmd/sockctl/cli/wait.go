package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) waitCommand() *cobra.Command {
	var state string
	var limit time.Duration
	c := &cobra.Command{
		Use:   "wait NAME...",
		Short: "Wait until listeners are running, drained, stopped or deleted",
		Example: "  sockctl wait web --for running\n" +
			"  sockctl wait web api --for deleted --timeout 2m",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeListeners,
	}
	c.Flags().StringVar(&state, "for", "", "what to wait for: running, drained, stopped or deleted")
	// This --timeout stands before the global one: the wait is what it bounds.
	c.Flags().DurationVar(&limit, "timeout", time.Minute, "longest time to wait; 0 waits for ever")
	must(c.MarkFlagRequired("for"))
	must(c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(
		[]string{"running", "drained", "stopped", "deleted"}, cobra.ShellCompDirectiveNoFileComp)))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		if limit < 0 {
			return usagef("--timeout cannot be negative")
		}
		a.timeout = limit
		reached, ok := waits[state]
		if !ok {
			return usagef("--for %q: want running, drained, stopped or deleted", state)
		}
		goals := map[string]goal{}
		for _, id := range unique(args) {
			goals[id] = func(l *pb.Listener) (bool, error) { return reached(id, l) }
		}
		ctx, cancel := a.within(ctx, 0)
		defer cancel()
		b := &batch{a: a}
		f := &follower{
			a:     a,
			goals: goals,
			last:  map[string]*pb.Listener{},
			reached: func(id string, last *pb.Listener) error {
				if last == nil { // was not there from the start
					last = &pb.Listener{Name: listenerName(id)}
				}
				return b.ok(last, state)
			},
			failed: b.fail,
		}
		if err := f.follow(ctx); err != nil {
			return err
		}
		return b.finish()
	})
	return c
}

// waits says, for each word of --for, whether it is so. Never written to.
var waits = map[string]func(id string, l *pb.Listener) (bool, error){
	"running": func(id string, l *pb.Listener) (bool, error) {
		if l == nil {
			return false, gone(id)
		}
		s := l.GetStatus().GetState()
		// A limited listener runs: it only accepts no more just now.
		return s == pb.ListenerStatus_STATE_RUNNING || s == pb.ListenerStatus_STATE_LIMITED, nil
	},
	"drained": func(id string, l *pb.Listener) (bool, error) {
		if l == nil {
			return false, gone(id)
		}
		return isDrained(l), nil
	},
	"stopped": func(id string, l *pb.Listener) (bool, error) {
		if l == nil {
			return false, gone(id)
		}
		return l.GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED, nil
	},
	"deleted": func(_ string, l *pb.Listener) (bool, error) { return l == nil, nil },
}
