package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// pauseModes are the words of --mode. Never written to.
var pauseModes = map[string]pb.PauseMode{
	"":       pb.PauseMode_PAUSE_MODE_UNSPECIFIED,
	"hold":   pb.PauseMode_PAUSE_MODE_HOLD,
	"stall":  pb.PauseMode_PAUSE_MODE_STALL,
	"refuse": pb.PauseMode_PAUSE_MODE_REFUSE,
}

func (a *app) pauseCommand() *cobra.Command {
	var mode string
	var resume time.Duration
	c := &cobra.Command{
		Use:   "pause NAME...",
		Short: "Stop accepting, and keep the sockets and the open connections",
		Long: "pause stops listeners from accepting. The sockets stay, open connections go on. What new clients meet:\n\n" +
			"  hold    they wait: the kernel connects them until the accept queue is full (the default)\n" +
			"  stall   they try again: connection attempts are dropped; TCP needs CAP_NET_ADMIN\n" +
			"  refuse  they are refused at once; those who wait already are served first\n\n" +
			"The mode is kept in the definition. A paused listener stays paused over a restart of the daemon.",
		Example: "  sockctl pause web\n" +
			"  sockctl pause web --mode refuse\n" +
			"  sockctl pause web api --resume-after 10m",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeListeners,
	}
	c.Flags().StringVar(&mode, "mode", "", "what clients meet: hold, stall or refuse (default: as defined, else hold)")
	c.Flags().DurationVar(&resume, "resume-after", 0, "resume by itself after this time (default: never)")
	must(c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"hold", "stall", "refuse"}, cobra.ShellCompDirectiveNoFileComp)))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		wanted, ok := pauseModes[mode]
		if !ok || mode == "" && c.Flags().Changed("mode") {
			return usagef("--mode %q: want hold, stall or refuse", mode)
		}
		var after *durationpb.Duration
		if c.Flags().Changed("resume-after") {
			if resume <= 0 {
				return usagef("--resume-after must be above zero")
			}
			after = durationpb.New(resume)
		}
		return a.act(ctx, args, func(ctx context.Context, api *client, name string) (*pb.Listener, error) {
			resp, err := api.listeners.PauseListener(ctx, &pb.PauseListenerRequest{Name: name, Mode: wanted, ResumeAfter: after})
			return resp.GetListener(), err
		})
	})
	return c
}

func (a *app) resumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "resume NAME...",
		Short:             "Accept again after a pause or a drain",
		Long:              "resume accepts again, those first who have waited. A drain that goes on is taken back.",
		Example:           "  sockctl resume web",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeListeners,
	}
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		return a.act(ctx, args, func(ctx context.Context, api *client, name string) (*pb.Listener, error) {
			resp, err := api.listeners.ResumeListener(ctx, &pb.ResumeListenerRequest{Name: name})
			return resp.GetListener(), err
		})
	})
	return c
}

// act makes a call for each name, and shows the state that it led to.
func (a *app) act(ctx context.Context, names []string, call func(ctx context.Context, api *client, name string) (*pb.Listener, error)) error {
	api, err := a.dial()
	if err != nil {
		return err
	}
	b := &batch{a: a}
	for _, id := range unique(names) {
		l, err := call(ctx, api, listenerName(id))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.fail(id, err)
			continue
		}
		if err := b.ok(l, stateText(l)); err != nil {
			return err
		}
	}
	return b.finish()
}

// stateText is the state and, where clients are not accepted, what they meet.
func stateText(l *pb.Listener) string {
	s := l.GetStatus()
	words := []string{word(s.GetState())}
	if s.GetState() == pb.ListenerStatus_STATE_PAUSED || s.GetState() == pb.ListenerStatus_STATE_DRAINING {
		words[0] += ":"
		words = append(words, s.GetMessage())
	}
	return strings.Join(words, " ")
}
