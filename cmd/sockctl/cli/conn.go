package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) connCommand() *cobra.Command {
	return group("conn", "List, inspect and close connections",
		a.connLsCommand(), a.connInspectCommand(), a.connCloseCommand())
}

func (a *app) connInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "inspect ID...",
		Short:             "Show all there is to know of a connection",
		Long:              "inspect shows a connection, known by its id or by its peer's IP:PORT.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeConnections,
		RunE: a.run(func(ctx context.Context, args []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			return a.each(ctx, args, func(id string) error {
				v, err := a.inspectConnection(ctx, api, id)
				if err != nil {
					return err
				}
				return a.print(v)
			})
		}),
	}
}
