package cli

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) sockCommand() *cobra.Command {
	c := group("sock", "The socket calls, one by one, on sockets of the daemon",
		a.sockLsCommand(), a.sockOpenCommand(), a.sockBindCommand(), a.sockListenCommand(), a.sockAcceptCommand(),
		a.sockConnectCommand(), a.sockSendCommand(), a.sockRecvCommand(), a.sockSendtoCommand(), a.sockRecvfromCommand(),
		a.sockTimeoutCommand(), a.sockPollCommand(), a.sockShutdownCommand(), a.sockCloseCommand())
	c.Long = "sock makes sockets in the daemon and uses them, a call at a time. They are known by their ids, as ss -e\n" +
		"prints them, and closed when nobody has used them for five minutes, or what open was told. An error\n" +
		"carries the kernel's errno."
	c.Example = "  id=$(sockctl sock open tcp)\n" +
		"  sockctl sock connect $id tcp://127.0.0.1:7007\n" +
		"  echo hello | sockctl sock send $id --all; sockctl sock recv $id"
	return c
}

// socketName is what the API calls a socket.
func socketName(id string) string { return sockets + socketID(id) }

// sock makes a command of one call; do is given the arguments.
func (a *app) sock(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, api *client, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args, ValidArgsFunction: a.completeSockets,
		RunE: a.run(func(ctx context.Context, args []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			return do(ctx, api, args)
		}),
	}
}

// answer prints a message, or words for people.
func (a *app) answer(m proto.Message, name, format string, args ...any) error {
	v := view{tree: func() any { return tree(m) }, text: func(w *bytes.Buffer, _ bool) { w.WriteString(clean(fmt.Sprintf(format, args...)) + "\n") }}
	if name != "" {
		v.names = []string{socketID(name)}
	}
	return a.print(v)
}

func (a *app) sockLsCommand() *cobra.Command {
	var filter string
	c := a.sock("ls", "List sockets: of clients, of listeners, and connections", cobra.NoArgs,
		func(ctx context.Context, api *client, _ []string) error {
			all, err := api.allSockets(ctx, filter)
			if err != nil {
				return err
			}
			return a.printSockets(all)
		})
	c.Flags().StringVar(&filter, "filter", "", "only those that match, as AIP-160 has it: role = LISTENER")
	must(c.RegisterFlagCompletionFunc("filter", cobra.NoFileCompletions))
	return c
}

// allSockets returns all pages.
func (c *client) allSockets(ctx context.Context, filter string) ([]*pb.Socket, error) {
	return pages(func(token string) ([]*pb.Socket, string, error) {
		page, err := c.sockets.ListSockets(ctx, &pb.ListSocketsRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		return page.GetSockets(), page.GetNextPageToken(), err
	})
}

func (a *app) printSockets(all []*pb.Socket) error {
	v := view{tree: func() any { return list("sockets", all) }}
	for _, s := range all {
		v.names = append(v.names, socketID(s.GetName()))
	}
	v.text = func(w *bytes.Buffer, wide bool) {
		head := []string{"ID", "ROLE", "LISTENER", "OWNER", "LOCAL", "REMOTE", "FD"}
		if wide {
			head = append(head, "TCP STATE", "WAITS FOR", "TO READ", "TO SEND", "AGE")
		}
		t := newTable(head...)
		for _, s := range all {
			cells := []string{
				socketID(s.GetName()), word(s.GetRole()), listenerID(s.GetListener()), s.GetOwner(), s.GetLocal().GetUri(), s.GetRemote().GetUri(), fmt.Sprint(s.GetFd()),
			}
			if wide {
				state := ""
				if s.GetTcpState() != pb.TcpState_TCP_STATE_UNSPECIFIED {
					state = word(s.GetTcpState())
				}
				q := s.GetQueue()
				cells = append(cells, state, strings.Join(s.GetWaitsFor(), ","), size(q.GetReceiveBytes()+q.GetUserReceiveBytes()), size(q.GetSendBytes()+q.GetUserSendBytes()), a.age(s.GetCreateTime()))
			}
			t.row(cells...)
		}
		t.write(w)
	}
	return a.print(v)
}

var networkWords = map[string]pb.Network{
	"tcp": pb.Network_NETWORK_TCP, "udp": pb.Network_NETWORK_UDP, "unix": pb.Network_NETWORK_UNIX,
	"unixgram": pb.Network_NETWORK_UNIXGRAM, "unixpacket": pb.Network_NETWORK_UNIXPACKET,
}

func (a *app) sockOpenCommand() *cobra.Command {
	var version uint32
	var options []string
	var idle time.Duration
	c := a.sock("open NETWORK", "Make a socket and print its id: socket(2)", cobra.ExactArgs(1),
		func(ctx context.Context, api *client, args []string) error {
			network, ok := networkWords[args[0]]
			if !ok {
				return usagef("network %q: want tcp, udp, unix, unixgram or unixpacket", args[0])
			}
			values, err := parseOptions("--option", options)
			if err != nil {
				return err
			}
			r := &pb.CreateSocketRequest{Network: network, IpVersion: version, Options: values}
			if idle != 0 {
				r.IdleTimeout = durationpb.New(idle)
			}
			resp, err := api.sockets.CreateSocket(ctx, r)
			if err != nil {
				return err
			}
			return a.answer(resp.GetSocket(), resp.GetSocket().GetName(), "%s", socketID(resp.GetSocket().GetName()))
		})
	c.ValidArgsFunction = cobra.FixedCompletions([]string{"tcp", "udp", "unix", "unixgram", "unixpacket"}, cobra.ShellCompDirectiveNoFileComp)
	c.Flags().Uint32Var(&version, "ip", 0, "IP `VERSION`: 4 or 6; otherwise both")
	c.Flags().StringArrayVar(&options, "option", nil, "set an option at once: `NAME=VALUE`, repeatable")
	c.Flags().DurationVar(&idle, "idle-timeout", 0, "close it when nobody has used it for this `TIME` (default 5m)")
	must(c.RegisterFlagCompletionFunc("option", a.completeOptionFlag))
	must(c.RegisterFlagCompletionFunc("ip", cobra.FixedCompletions([]string{"4", "6"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("idle-timeout", cobra.NoFileCompletions))
	return c
}

func (a *app) sockBindCommand() *cobra.Command {
	return a.sock("bind ID URI", "Tie a socket to an address and print it: bind(2)", cobra.ExactArgs(2),
		func(ctx context.Context, api *client, args []string) error {
			resp, err := api.sockets.Bind(ctx, &pb.BindRequest{Name: socketName(args[0]), Address: args[1]})
			if err != nil {
				return err
			}
			return a.answer(resp, args[0], "%s", resp.GetLocal().GetUri())
		})
}

func (a *app) sockListenCommand() *cobra.Command {
	var backlog uint32
	c := a.sock("listen ID", "Let connections come, and print how many may wait: listen(2)", cobra.ExactArgs(1),
		func(ctx context.Context, api *client, args []string) error {
			resp, err := api.sockets.Listen(ctx, &pb.ListenRequest{Name: socketName(args[0]), Backlog: backlog})
			if err != nil {
				return err
			}
			return a.answer(resp, args[0], "%s", strconv.FormatUint(uint64(resp.GetBacklog()), 10))
		})
	c.Flags().Uint32Var(&backlog, "backlog", 0, "most connections that may wait (default net.core.somaxconn)")
	must(c.RegisterFlagCompletionFunc("backlog", cobra.NoFileCompletions))
	return c
}

func (a *app) sockTimeoutCommand() *cobra.Command {
	return a.sock("timeout ID none|0|TIME", "Say how long calls on a socket wait: settimeout, setblocking", cobra.ExactArgs(2),
		func(ctx context.Context, api *client, args []string) error {
			r := &pb.SetTimeoutRequest{Name: socketName(args[0])}
			if args[1] != "none" {
				d, err := time.ParseDuration(args[1])
				if err != nil {
					return usagef("timeout %q: want none, 0 or a time such as 500ms", args[1])
				}
				r.Timeout = durationpb.New(d)
			}
			resp, err := api.sockets.SetTimeout(ctx, r)
			if err != nil {
				return err
			}
			return a.answer(resp, args[0], "%s timeout %s", socketID(args[0]), args[1])
		})
}

func (a *app) sockShutdownCommand() *cobra.Command {
	c := a.sock("shutdown ID read|write|both", "End one direction, or both: shutdown(2)", cobra.ExactArgs(2),
		func(ctx context.Context, api *client, args []string) error {
			how := args[1]
			if how != "read" && how != "write" && how != "both" {
				return usagef("direction %q: want read, write or both", how)
			}
			resp, err := api.sockets.Shutdown(ctx, &pb.ShutdownRequest{Name: socketName(args[0]), Read: how != "write", Write: how != "read"})
			if err != nil {
				return err
			}
			return a.answer(resp, args[0], "%s shut down for %s", socketID(args[0]), how)
		})
	return c
}

func (a *app) sockCloseCommand() *cobra.Command {
	return a.sock("close ID...", "Close sockets: close(2)", cobra.MinimumNArgs(1),
		func(ctx context.Context, api *client, args []string) error {
			return a.each(ctx, args, func(id string) error {
				resp, err := api.sockets.CloseSocket(ctx, &pb.CloseSocketRequest{Name: socketName(id)})
				if err != nil {
					return err
				}
				return a.answer(resp, id, "%s closed", socketID(id))
			})
		})
}
