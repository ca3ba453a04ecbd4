package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) connCommand() *cobra.Command {
	return group("conn", "List, inspect and close connections",
		a.connLsCommand(), a.connInspectCommand(), a.connCloseCommand())
}

func (a *app) connLsCommand() *cobra.Command {
	var filter string
	c := &cobra.Command{
		Use:   "ls [LISTENER...]",
		Short: "List open connections",
		Example: "  sockctl conn ls web\n" +
			"  sockctl conn ls --filter 'remote.ip = \"10.0.0.7\"'",
		ValidArgsFunction: a.completeListeners,
	}
	c.Flags().StringVar(&filter, "filter", "", "only those that match, as AIP-160 has it: remote.ip = \"10.0.0.7\"")
	must(c.RegisterFlagCompletionFunc("filter", cobra.NoFileCompletions))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		api, err := a.dial()
		if err != nil {
			return err
		}
		ids := unique(args)
		if err := api.mustExist(ctx, ids); err != nil {
			return err
		}
		detail := pb.ConnectionView_CONNECTION_VIEW_BASIC // the kernel is not asked about each of a million
		if a.structured() {
			detail = pb.ConnectionView_CONNECTION_VIEW_FULL
		}
		all, err := api.allConnections(ctx, and(filter, ofListeners(ids)), detail)
		if err != nil {
			return err
		}
		return a.printConnections(all)
	})
	return c
}

// mustExist fails when one of the listeners is not there: a filter alone
// would find nothing and call it success.
func (c *client) mustExist(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if _, err := c.listener(ctx, id, pb.ListenerView_LISTENER_VIEW_BASIC); err != nil {
			return err
		}
	}
	return nil
}

// ofListeners is the filter for their connections.
func ofListeners(ids []string) string {
	var parts []string
	for _, id := range ids {
		parts = append(parts, "listener = "+quote(listenerName(id)))
	}
	return strings.Join(parts, " OR ")
}

// and joins two filters, either of which may be empty.
func and(x, y string) string {
	if x == "" || y == "" {
		return x + y
	}
	return "(" + x + ") AND (" + y + ")"
}

func (a *app) printConnections(all []*pb.Connection) error {
	v := view{tree: func() any { return list("connections", all) }}
	for _, c := range all {
		v.names = append(v.names, connectionID(c.GetName()))
	}
	v.text = func(w *bytes.Buffer, wide bool) {
		head := []string{"ID", "LISTENER", "REMOTE", "LOCAL", "STATE", "AGE", "IDLE", "IN", "OUT"}
		if wide {
			head = append(head, "FD", "READS", "WRITES", "WAITS FOR", "PEER")
		}
		t := newTable(head...)
		for _, c := range all {
			cells := []string{
				connectionID(c.GetName()), listenerID(c.GetListener()), c.GetRemote().GetUri(), c.GetLocal().GetUri(),
				word(c.GetState()), a.age(c.GetCreateTime()), a.age(c.GetLastActiveTime()),
				size(c.GetReceivedBytes()), size(c.GetSentBytes()),
			}
			if wide {
				peer := c.GetPeer().GetCommand()
				if pid := c.GetPeer().GetPid(); pid != 0 {
					peer = strings.TrimSpace(fmt.Sprintf("%s (pid %d)", peer, pid))
				}
				cells = append(cells, fmt.Sprint(c.GetFd()), fmt.Sprint(c.GetReceivedMessages()),
					fmt.Sprint(c.GetSentMessages()), strings.Join(c.GetWaitsFor(), ","), peer)
			}
			t.row(cells...)
		}
		t.write(w)
	}
	return a.print(v)
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
