package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// closeFlags are the flags of conn close.
type closeFlags struct {
	filter          string
	all, reset, yes bool
	grace           time.Duration
}

// request closes what a filter finds.
func (f *closeFlags) request(filter string) *pb.CloseConnectionsRequest {
	req := &pb.CloseConnectionsRequest{Filter: filter, Reset_: f.reset}
	if f.grace != 0 {
		req.Grace = durationpb.New(f.grace)
	}
	return req
}

func (a *app) connCloseCommand() *cobra.Command {
	var f closeFlags
	c := &cobra.Command{
		Use:   "close ID... | --filter EXPR | --all LISTENER...",
		Short: "Close connections",
		Example: "  sockctl conn close 1f 2a\n" +
			"  sockctl conn close --filter 'remote.ip = \"10.0.0.7\"' --reset\n" +
			"  sockctl conn close --all web -y",
		ValidArgsFunction: func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if f.all {
				return a.completeListeners(c, args, word)
			}
			return a.completeConnections(c, args, word)
		},
	}
	c.Flags().StringVar(&f.filter, "filter", "", "close those that match, as AIP-160 has it")
	c.Flags().BoolVar(&f.all, "all", false, "close all of the listeners named")
	c.Flags().BoolVar(&f.reset, "reset", false, "send RST: the peer sees a broken connection at once")
	c.Flags().DurationVar(&f.grace, "grace", 0, "let them finish for this `TIME` first: HTTP ends them after the response that is due")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	c.MarkFlagsMutuallyExclusive("filter", "all")
	must(c.RegisterFlagCompletionFunc("filter", cobra.NoFileCompletions))
	must(c.RegisterFlagCompletionFunc("grace", cobra.NoFileCompletions))
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		byFilter := c.Flags().Changed("filter")
		switch {
		case byFilter && f.filter == "":
			return usagef("--filter cannot be empty")
		case byFilter && len(args) > 0:
			return usagef("give connections or --filter, not both")
		case f.all && len(args) == 0:
			return usagef("--all needs the listener whose connections to close")
		case !byFilter && len(args) == 0:
			return usagef("say which: an id, --filter EXPR or --all LISTENER").try("sockctl conn ls")
		}
		api, err := a.dial()
		if err != nil {
			return err
		}
		if byFilter || f.all {
			return a.closeMany(ctx, api, unique(args), &f)
		}
		return a.closeEach(ctx, api, args, &f)
	})
	return c
}

// closeMany closes what a filter finds, and what it finds may be nothing.
func (a *app) closeMany(ctx context.Context, api *client, ids []string, f *closeFlags) error {
	filter := f.filter
	if f.all {
		if !f.yes && !a.env.IsTerminal {
			return usagef("--all without a terminal to ask at needs -y")
		}
		if err := api.mustExist(ctx, ids); err != nil {
			return err
		}
		filter = ofListeners(ids)
		if !f.yes {
			if err := a.confirm(ctx, api, filter, strings.Join(ids, ", ")); err != nil {
				return err
			}
		}
	}
	p, err := a.closeConnections(ctx, api, f.request(filter))
	if err != nil {
		return err
	}
	if err := a.printClosed(p); err != nil || p.GetFailed() == 0 {
		return err
	}
	return notClosed(p)
}

func notClosed(p *pb.CloseConnectionsResponse) *failure {
	if p.GetClosed() == 0 {
		return failf(codes.FailedPrecondition, "could not close %s", plural(p.GetFailed(), "connection"))
	}
	return &failure{
		exit:    exitPartDone,
		message: fmt.Sprintf("could not close %d of %s", p.GetFailed(), plural(p.GetMatched(), "connection")),
	}
}

// closeEach closes connections one by one: progress is counts, and counts of
// several would not say which one was not there.
func (a *app) closeEach(ctx context.Context, api *client, ids []string, f *closeFlags) error {
	sum := &pb.CloseConnectionsResponse{Done: true}
	err := a.each(ctx, ids, func(id string) error {
		name := connectionName(id)
		if isPeer(id) {
			conn, err := api.connection(ctx, id)
			if err != nil {
				return err
			}
			name = conn.GetName()
		}
		p, err := a.closeConnections(ctx, api, f.request("name = "+quote(name)))
		if err != nil {
			return err
		}
		sum.Matched += p.GetMatched()
		sum.Closed += p.GetClosed()
		sum.Failed += p.GetFailed()
		if p.GetMatched() == 0 {
			f := failf(codes.NotFound, "%s: no such connection, it may have closed", connectionID(name))
			f.reason = "CONNECTION_NOT_FOUND"
			return f
		}
		if p.GetFailed() > 0 {
			return notClosed(p)
		}
		return nil
	})
	if err != nil && sum.GetClosed() == 0 {
		return err
	}
	if err := a.printClosed(sum); err != nil {
		return err
	}
	return err
}

// closeConnections runs one call to its end and returns the last progress.
func (a *app) closeConnections(ctx context.Context, api *client, req *pb.CloseConnectionsRequest) (*pb.CloseConnectionsResponse, error) {
	ctx, cancel := a.within(ctx, req.GetGrace().AsDuration())
	defer cancel()
	stream, err := api.connections.CloseConnections(ctx, req)
	if err != nil {
		return nil, err
	}
	last := &pb.CloseConnectionsResponse{}
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		last = p
	}
}

func (a *app) printClosed(p *pb.CloseConnectionsResponse) error {
	return a.print(view{
		tree: func() any { return tree(p) },
		text: func(w *bytes.Buffer, _ bool) { fmt.Fprintf(w, "closed %d\n", p.GetClosed()) },
	})
}

// confirm asks before all connections of a listener go.
func (a *app) confirm(ctx context.Context, api *client, filter, names string) error {
	p, err := a.closeConnections(ctx, api, &pb.CloseConnectionsRequest{Filter: filter, ValidateOnly: true})
	if err != nil {
		return err
	}
	return a.ask(ctx, "Close "+plural(p.GetMatched(), "connection")+" of "+clean(names)+"?", "nothing is closed")
}
