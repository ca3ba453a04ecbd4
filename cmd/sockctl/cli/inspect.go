package cli

import (
	"bytes"
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) inspectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "inspect NAME|CONN-ID|SOCKET-ID...",
		Short: "Show all there is to know of a listener, a connection or a socket",
		Long: "inspect shows what is wanted, what is, the descriptor, getsockname and getpeername, queues, memory,\n" +
			"TCP_INFO, and the options in force: with -o wide all of them, else those that are not the default.\n" +
			"An id is taken for a listener, then a connection, then a socket; listeners/ID, connections/ID and\n" +
			"sockets/ID say which. A connection is known by its peer's IP:PORT too.",
		Example: "  sockctl inspect web\n" +
			"  sockctl inspect 10.0.0.7:51344\n" +
			"  sockctl inspect web -o json | jq .optionsInForce",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTargets,
	}
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		api, err := a.dial()
		if err != nil {
			return err
		}
		first := true
		return a.each(ctx, args, func(id string) error {
			v, err := a.inspect(ctx, api, id)
			if err != nil {
				return err
			}
			if text := v.text; !first {
				v.text = func(w *bytes.Buffer, wide bool) {
					w.WriteByte('\n')
					text(w, wide)
				}
			}
			first = false
			return a.print(v)
		})
	})
	return c
}

// inspect finds what id means and returns it.
func (a *app) inspect(ctx context.Context, api *client, id string) (view, error) {
	switch {
	case strings.HasPrefix(id, listeners):
		return a.inspectListener(ctx, api, id)
	case strings.HasPrefix(id, connections), isPeer(id):
		return a.inspectConnection(ctx, api, id)
	case strings.HasPrefix(id, sockets):
		return a.inspectSocket(ctx, api, id)
	}
	v, err := a.inspectListener(ctx, api, id)
	if !a.missing(err) || !isCookie(id) {
		return v, err
	}
	v, err = a.inspectConnection(ctx, api, id)
	if !a.missing(err) {
		return v, err
	}
	v, err = a.inspectSocket(ctx, api, id)
	if a.missing(err) {
		err = failf(codes.NotFound, "no listener, connection or socket is called %s", id).try("sockctl ls; sockctl conn ls")
	}
	return v, err
}

// missing reports whether err says that there is no such thing.
func (a *app) missing(err error) bool { return err != nil && a.explain(err).code == codes.NotFound }

func (a *app) inspectListener(ctx context.Context, api *client, id string) (view, error) {
	l, err := api.listener(ctx, id, pb.ListenerView_LISTENER_VIEW_FULL)
	if err != nil {
		return view{}, err
	}
	options := a.inForce(ctx, api, l.GetName())
	return view{
		tree:  func() any { return withOptions(tree(l), options) },
		names: []string{listenerID(l.GetName())},
		text:  func(w *bytes.Buffer, wide bool) { sections(w, a.describeListener(l, options, wide)...) },
	}, nil
}

func (a *app) inspectConnection(ctx context.Context, api *client, id string) (view, error) {
	conn, err := api.connection(ctx, id)
	if err != nil {
		return view{}, err
	}
	options := a.inForce(ctx, api, conn.GetName())
	return view{
		tree:  func() any { return withOptions(tree(conn), options) },
		names: []string{connectionID(conn.GetName())},
		text:  func(w *bytes.Buffer, wide bool) { sections(w, a.describeConnection(conn, options, wide)...) },
	}, nil
}

func (a *app) inspectSocket(ctx context.Context, api *client, id string) (view, error) {
	resp, err := api.sockets.GetSocket(ctx, &pb.GetSocketRequest{Name: socketName(id), View: pb.SocketView_SOCKET_VIEW_FULL})
	s := resp.GetSocket()
	return view{
		tree:  func() any { return tree(s) },
		names: []string{socketID(s.GetName())},
		text:  func(w *bytes.Buffer, _ bool) { sections(w, a.describeSocket(s)...) },
	}, err
}

// connection gets one by its id or its peer's address.
func (c *client) connection(ctx context.Context, id string) (*pb.Connection, error) {
	name := id
	if !isPeer(id) {
		name = connectionName(id)
	}
	resp, err := c.connections.GetConnection(ctx, &pb.GetConnectionRequest{Name: name})
	return resp.GetConnection(), err
}
