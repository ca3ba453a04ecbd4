package cli

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// Someone waits at a prompt: what cannot be had at once is not offered, and
// nothing is ever said about it.
const completionTime = 500 * time.Millisecond

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the completion script of a shell",
		Long:  "completion prints a script that makes a shell complete commands, flags and the names of what is there.",
		Example: "  source <(sockctl completion bash)\n" +
			"  sockctl completion zsh > \"${fpath[1]}/_sockctl\"\n" +
			"  sockctl completion fish > ~/.config/fish/completions/sockctl.fish\n" +
			"  sockctl completion powershell | Out-String | Invoke-Expression",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, args []string) error {
			var b bytes.Buffer
			var err error
			switch root := c.Root(); args[0] {
			case "bash":
				err = root.GenBashCompletionV2(&b, true)
			case "zsh":
				err = root.GenZshCompletion(&b)
			case "fish":
				err = root.GenFishCompletion(&b, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(&b)
			}
			if err == nil {
				_, err = a.env.Stdout.Write(b.Bytes())
			}
			if err != nil {
				return a.explain(err)
			}
			return nil
		},
	}
}

// live runs get against the daemon and returns nothing when that fails.
func (a *app) live(c *cobra.Command, get func(ctx context.Context, api *client) ([]string, error)) []string {
	api, err := a.dial()
	if err != nil {
		return nil
	}
	parent := c.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionTime)
	defer cancel()
	words, err := get(ctx, api)
	if err != nil {
		return nil
	}
	return words
}

// without leaves out what is on the line already.
func without(words, args []string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return slices.Contains(args, w) })
}

func (a *app) listenerIDs(c *cobra.Command) []string {
	return a.live(c, func(ctx context.Context, api *client) ([]string, error) {
		all, err := api.allListeners(ctx, "", pb.ListenerView_LISTENER_VIEW_BASIC)
		var ids []string
		for _, l := range all {
			ids = append(ids, listenerID(l.GetName()))
		}
		return ids, err
	})
}

// connectionIDs offers one page: nobody picks from a million.
func (a *app) connectionIDs(c *cobra.Command) []string {
	return a.live(c, func(ctx context.Context, api *client) ([]string, error) {
		page, err := api.connections.ListConnections(ctx, &pb.ListConnectionsRequest{})
		var ids []string
		for _, conn := range page.GetConnections() {
			ids = append(ids, cobra.CompletionWithDesc(connectionID(conn.GetName()), conn.GetRemote().GetUri()))
		}
		return ids, err
	})
}

func (a *app) options(c *cobra.Command) []*pb.OptionSpec {
	var all []*pb.OptionSpec
	a.live(c, func(ctx context.Context, api *client) ([]string, error) {
		resp, err := api.tuning.ListOptions(ctx, &pb.ListOptionsRequest{})
		all = resp.GetOptions()
		return nil, err
	})
	return all
}

// optionPairs offers name= for every option, and the values of those that
// have but two.
func (a *app) optionPairs(c *cobra.Command) []string {
	var words []string
	for _, o := range a.options(c) {
		words = append(words, cobra.CompletionWithDesc(o.GetName()+"=", o.GetSummary()))
		if o.GetType() == pb.OptionSpec_TYPE_BOOL {
			words = append(words, o.GetName()+"=true", o.GetName()+"=false")
		}
	}
	return words
}

func (a *app) completeListeners(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if c.Name() == "start" && len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return without(a.listenerIDs(c), args), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeConnections(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return without(a.connectionIDs(c), args), cobra.ShellCompDirectiveNoFileComp
}

// completeSockets offers the sockets of clients.
func (a *app) completeSockets(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ids := a.live(c, func(ctx context.Context, api *client) ([]string, error) {
		page, err := api.sockets.ListSockets(ctx, &pb.ListSocketsRequest{Filter: `owner != ""`})
		var ids []string
		for _, s := range page.GetSockets() {
			ids = append(ids, cobra.CompletionWithDesc(socketID(s.GetName()), word(s.GetRole())+" "+s.GetLocal().GetUri()))
		}
		return ids, err
	})
	return without(ids, args), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeTargets(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return without(append(a.listenerIDs(c), a.connectionIDs(c)...), args), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeTune(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeTargets(c, args, word)
	}
	return a.completeOptionFlag(c, args, word)
}

func (a *app) completeOptionFlag(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.optionPairs(c), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func (a *app) completeOptionsArg(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return append(optionNames(a.options(c)), a.listenerIDs(c)...), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeLogLevel(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		loggers := a.live(c, func(ctx context.Context, api *client) ([]string, error) {
			resp, err := api.daemon.GetLogLevels(ctx, &pb.GetLogLevelsRequest{})
			return slices.Sorted(maps.Keys(resp.GetLevels())), err
		})
		return append(loggers, levels...), cobra.ShellCompDirectiveNoFileComp
	case 1:
		return levels, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
