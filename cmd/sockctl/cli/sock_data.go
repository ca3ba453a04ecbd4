package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) sockAcceptCommand() *cobra.Command {
	c := a.sock("accept ID|listeners/NAME", "Wait for a connection and print the id of its socket: accept(2)", cobra.ExactArgs(1),
		func(ctx context.Context, api *client, args []string) error {
			name := args[0]
			if !strings.HasPrefix(name, listeners) {
				name = socketName(name)
			}
			resp, err := api.sockets.Accept(ctx, &pb.AcceptRequest{Name: name})
			if err != nil {
				return err
			}
			s := resp.GetSocket()
			return a.answer(s, s.GetName(), "%s %s", socketID(s.GetName()), s.GetRemote().GetUri())
		})
	c.Long = "accept takes a connection of a listening socket, or of a listener with the remote handler. It prints the\n" +
		"id of the new socket and the client's address; with -o name the id alone."
	return c
}

func (a *app) sockConnectCommand() *cobra.Command {
	var errno bool
	c := a.sock("connect ID URI", "Connect a socket: connect(2)", cobra.ExactArgs(2),
		func(ctx context.Context, api *client, args []string) error {
			resp, err := api.sockets.Connect(ctx, &pb.ConnectRequest{Name: socketName(args[0]), Address: args[1], ReturnErrno: errno})
			if err != nil {
				return err
			}
			if errno {
				return a.answer(resp, args[0], "%s", strings.TrimSpace(fmt.Sprintf("%d %s", resp.GetErrnoNumber(), resp.GetErrno())))
			}
			return a.answer(resp, args[0], "%s connected to %s", socketID(args[0]), resp.GetSocket().GetRemote().GetUri())
		})
	c.Flags().BoolVar(&errno, "errno", false, "a refusal is no error: print 0, or the errno (connect_ex)")
	return c
}

// payload is what to send: an argument, or else standard input.
func (a *app) payload(ctx context.Context, args []string) ([]byte, error) {
	if len(args) > 0 {
		return []byte(args[0]), nil
	}
	return interruptible(ctx, func() ([]byte, error) { return io.ReadAll(a.env.Stdin) })
}

func (a *app) sockSendCommand() *cobra.Command {
	var all bool
	c := a.sock("send ID [TEXT]", "Send a text, or standard input, and print how many bytes the kernel took: send(2)", cobra.RangeArgs(1, 2),
		func(ctx context.Context, api *client, args []string) error {
			p, err := a.payload(ctx, args[1:])
			if err != nil {
				return err
			}
			resp, err := api.sockets.Send(ctx, &pb.SendRequest{Name: socketName(args[0]), Payload: p, All: all})
			if err != nil {
				return err
			}
			return a.answer(resp, args[0], "%d", resp.GetSent())
		})
	c.Flags().BoolVar(&all, "all", false, "wait until the kernel has taken all (sendall)")
	return c
}

func (a *app) sockRecvCommand() *cobra.Command {
	var most uint32
	var peek bool
	c := a.sock("recv ID", "Receive bytes and write them as they are; none at the end of the stream: recv(2)", cobra.ExactArgs(1),
		func(ctx context.Context, api *client, args []string) error {
			resp, err := api.sockets.Recv(ctx, &pb.RecvRequest{Name: socketName(args[0]), MaxBytes: most, Peek: peek})
			if err != nil {
				return err
			}
			return a.print(view{
				tree: func() any { return tree(resp) }, names: []string{socketID(args[0])},
				text: func(w *bytes.Buffer, _ bool) { w.Write(resp.GetPayload()) },
			})
		})
	c.Flags().Uint32VarP(&most, "bytes", "n", 0, "at most so many bytes (default 64 KiB)")
	c.Flags().BoolVar(&peek, "peek", false, "leave them to be received again (MSG_PEEK)")
	must(c.RegisterFlagCompletionFunc("bytes", cobra.NoFileCompletions))
	return c
}

func (a *app) sockSendtoCommand() *cobra.Command {
	return a.sock("sendto ID URI [TEXT]", "Send a text, or standard input, as one datagram: sendto(2)", cobra.RangeArgs(2, 3),
		func(ctx context.Context, api *client, args []string) error {
			p, err := a.payload(ctx, args[2:])
			if err != nil {
				return err
			}
			resp, err := api.sockets.SendTo(ctx, &pb.SendToRequest{Name: socketName(args[0]), Payload: p, Address: args[1]})
			if err != nil {
				return err
			}
			return a.answer(resp, args[0], "%d", resp.GetSent())
		})
}

func (a *app) sockRecvfromCommand() *cobra.Command {
	var most, count uint32
	c := a.sock("recvfrom ID", "Receive datagrams, with who sent them and where to: recvfrom(2)", cobra.ExactArgs(1),
		func(ctx context.Context, api *client, args []string) error {
			resp, err := api.sockets.RecvFrom(ctx, &pb.RecvFromRequest{Name: socketName(args[0]), MaxDatagrams: count, MaxBytes: most})
			if err != nil {
				return err
			}
			return a.print(view{
				tree: func() any { return tree(resp) }, names: []string{socketID(args[0])},
				text: func(w *bytes.Buffer, _ bool) {
					t := newTable("FROM", "TO", "CUT", "PAYLOAD")
					for _, d := range resp.GetDatagrams() {
						t.row(d.GetRemote().GetUri(), d.GetLocal().GetUri(), strconv.FormatBool(d.GetTruncated()), strconv.Quote(string(d.GetPayload())))
					}
					t.write(w)
				},
			})
		})
	c.Flags().Uint32VarP(&most, "bytes", "n", 0, "keep at most so many bytes of each (default all)")
	c.Flags().Uint32Var(&count, "count", 0, "at most so many datagrams (default 1)")
	must(c.RegisterFlagCompletionFunc("bytes", cobra.NoFileCompletions))
	must(c.RegisterFlagCompletionFunc("count", cobra.NoFileCompletions))
	return c
}

func (a *app) sockPollCommand() *cobra.Command {
	var read, write, exception []string
	var wait time.Duration
	var c *cobra.Command
	c = a.sock("poll", "Wait until a socket is ready: select(2)", cobra.NoArgs,
		func(ctx context.Context, api *client, _ []string) error {
			r := &pb.PollRequest{Readable: socketNames(read), Writable: socketNames(write), Exceptional: socketNames(exception)}
			if c.Flags().Changed("wait") {
				r.Timeout = durationpb.New(wait)
			}
			resp, err := api.sockets.Poll(ctx, r)
			if err != nil {
				return err
			}
			return a.printReady(resp)
		})
	c.Long = "poll prints the sockets that are ready, or nothing when the time of --wait is over. Without --wait it waits\n" +
		"until one is; --wait 0s only looks."
	c.Example = "  sockctl sock poll --read $server --read $client --wait 5s"
	c.Flags().StringArrayVarP(&read, "read", "r", nil, "until there is something to receive, or to accept, on `ID`; repeatable")
	c.Flags().StringArrayVarP(&write, "write", "w", nil, "until `ID` can send; repeatable")
	c.Flags().StringArrayVarP(&exception, "except", "x", nil, "until `ID` has an error; repeatable")
	c.Flags().DurationVar(&wait, "wait", -1, "at most this `TIME` (default: until one is ready)")
	c.Flags().Lookup("wait").DefValue = ""
	for _, name := range []string{"read", "write", "except"} {
		must(c.RegisterFlagCompletionFunc(name, a.completeSockets))
	}
	must(c.RegisterFlagCompletionFunc("wait", cobra.NoFileCompletions))
	return c
}

func socketNames(ids []string) []string {
	var names []string
	for _, id := range ids {
		names = append(names, socketName(id))
	}
	return names
}

// printReady prints a line for each, or nothing at all.
func (a *app) printReady(resp *pb.PollResponse) error {
	v := view{tree: func() any { return tree(resp) }}
	lists := []struct {
		word  string
		names []string
	}{{"readable", resp.GetReadable()}, {"writable", resp.GetWritable()}, {"exceptional", resp.GetExceptional()}}
	for _, l := range lists {
		for _, name := range l.names {
			v.names = append(v.names, socketID(name))
		}
	}
	v.text = func(w *bytes.Buffer, _ bool) {
		for _, l := range lists {
			for _, name := range l.names {
				fmt.Fprintf(w, "%s %s\n", clean(socketID(name)), l.word)
			}
		}
	}
	return a.print(v)
}
