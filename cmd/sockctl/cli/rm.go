package cli

import (
	"context"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) rmCommand() *cobra.Command {
	var drain drainFlags
	var ignoreMissing, noWait bool
	c := &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Drain and remove listeners",
		Example:           "  sockctl rm web api --now",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeListeners,
	}
	drain.register(c, false)
	c.Flags().BoolVar(&ignoreMissing, "ignore-missing", false, "one that is not there is no error")
	c.Flags().BoolVar(&noWait, "no-wait", false, "return while connections finish")
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		timeout, err := drain.timeout()
		if err != nil {
			return err
		}
		return a.end(ctx, args, ending{
			noWait: noWait,
			call: func(ctx context.Context, api *client, name string) (*pb.Listener, error) {
				resp, err := api.listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{
					Name: name, AllowMissing: ignoreMissing, DrainTimeout: timeout,
				})
				return resp.GetListener(), err
			},
			over: removed,
			word: "removed",
		})
	})
	return c
}

// removed is reached when the listener is gone, or another has its name.
func removed(asked *pb.Listener) goal {
	return func(l *pb.Listener) (bool, error) {
		return l == nil || l.GetUid() != asked.GetUid(), nil
	}
}
