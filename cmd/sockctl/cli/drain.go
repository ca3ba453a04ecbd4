package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) drainCommand() *cobra.Command {
	var limit time.Duration
	var noWait bool
	c := &cobra.Command{
		Use:   "drain NAME...",
		Short: "Stop accepting and let connections finish; the sockets stay",
		Long: "drain stops listeners from accepting and lets open connections finish; what is left when the time is over\n" +
			"is closed. The sockets stay, the listeners are paused then: 'sockctl resume' takes a drain back at any time,\n" +
			"also while it goes on. What new clients meet is the pause mode of the definition.",
		Example: "  sockctl drain web --timeout 60s\n" +
			"  sockctl drain web --no-wait && sockctl wait web --for drained",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeListeners,
	}
	// This --timeout stands before the global one: it is what connections have.
	c.Flags().DurationVar(&limit, "timeout", 0, "time that open connections have to finish, 0s for none (default: as defined, else 5s)")
	c.Flags().BoolVar(&noWait, "no-wait", false, "return while connections finish")
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		var timeout *durationpb.Duration
		if c.Flags().Changed("timeout") {
			if limit < 0 {
				return usagef("--timeout cannot be negative")
			}
			timeout = durationpb.New(limit)
		}
		return a.end(ctx, args, ending{
			noWait: noWait,
			call: func(ctx context.Context, api *client, name string) (*pb.Listener, error) {
				resp, err := api.listeners.DrainListener(ctx, &pb.DrainListenerRequest{Name: name, Timeout: timeout})
				return resp.GetListener(), err
			},
			over: func(asked *pb.Listener) goal { return drained(listenerID(asked.GetName())) },
			word: "drained",
		})
	})
	return c
}

// drained is reached when a listener that was told to drain has.
func drained(id string) goal {
	return func(l *pb.Listener) (bool, error) {
		switch {
		case l == nil:
			return false, gone(id)
		case isDrained(l):
			return true, nil
		case l.GetSpec().GetDesiredState() == pb.ListenerSpec_DESIRED_STATE_RUNNING:
			return false, failf(codes.Aborted, "%s: someone resumed it", id)
		}
		return false, nil
	}
}

// isDrained reports whether a listener accepts nothing and has no connection.
func isDrained(l *pb.Listener) bool {
	s := l.GetStatus()
	return s.GetState() == pb.ListenerStatus_STATE_PAUSED && s.GetActiveConnections() == 0 || s.GetState() == pb.ListenerStatus_STATE_STOPPED
}

// drainLeft is the time until what is left of a listener's connections is
// closed.
func (a *app) drainLeft(l *pb.Listener) time.Duration {
	d := l.GetStatus().GetDrain()
	if d.GetDeadline() == nil || l.GetStatus().GetState() != pb.ListenerStatus_STATE_DRAINING {
		return 0
	}
	return max(d.GetDeadline().AsTime().Sub(a.env.Now()), 0)
}

// showDrains shows on a terminal, on one line that is written over, how far the
// drains are.
func (f *follower) showDrains(ctx context.Context, api *client) {
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(f.goals)) {
		l, err := api.listener(ctx, id, pb.ListenerView_LISTENER_VIEW_BASIC)
		if err != nil {
			continue // the watch tells what is wrong
		}
		d := l.GetStatus().GetDrain()
		if d == nil || l.GetStatus().GetState() != pb.ListenerStatus_STATE_DRAINING {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s: %d of %s left, %v", id, d.GetRemainingConnections(),
			plural(d.GetInitialConnections(), "connection"), f.a.drainLeft(l).Round(time.Second)))
	}
	if len(parts) > 3 {
		parts = append(parts[:3], fmt.Sprintf("and %d more", len(parts)-3))
	}
	if len(parts) > 0 {
		f.a.progress(strings.Join(parts, "; "))
	}
}

// progress shows a line that the next one replaces; an empty one takes it away.
func (a *app) progress(text string) {
	if a.env.IsTerminal && !a.structured() {
		_, _ = fmt.Fprintf(a.env.Stderr, "\r\x1b[K%s", clean(text))
	}
}
