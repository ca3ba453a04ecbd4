package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/internal/control"
)

const (
	maxAnswer = 64 << 20 // bytes of one message from the daemon
	pageSize  = 1000     // the most a list call returns
)

// client is a connection to one daemon.
type client struct {
	addr        string
	conn        *grpc.ClientConn
	listeners   pb.ListenerServiceClient
	connections pb.ConnectionServiceClient
	tuning      pb.TuningServiceClient
	daemon      pb.DaemonServiceClient
	events      pb.EventServiceClient
	stats       pb.StatsServiceClient
	sockets     pb.SocketServiceClient

	mu      sync.Mutex
	dialErr error // of the last dial; guarded by mu
}

// address is where the daemon should be: flag, environment, then its own
// default.
func (a *app) address() string {
	if a.addr != "" {
		return a.addr
	}
	if addr := a.env.Getenv("SOCKMGR_ADDR"); addr != "" {
		return addr
	}
	return control.Address(a.env.Getenv, a.env.UID)
}

// dial returns the client of this run. It does no I/O: grpc connects with the
// first call.
func (a *app) dial() (*client, error) {
	if a.client != nil {
		return a.client, nil
	}
	c := &client{addr: a.address()}
	to, err := a.target(c.addr)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(c.addr, "/") {
		c.addr = "unix://" + c.addr // messages hand it on to the daemon, which wants a URI
	}
	// The target is a placeholder: a path may hold what a URL may not, and a
	// dialer of our own keeps the system's error whole.
	c.conn, err = grpc.NewClient("passthrough:///sockmgr",
		grpc.WithAuthority(to.authority),
		grpc.WithTransportCredentials(to.credentials),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.connect(ctx, to) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableServiceConfig(),
		grpc.WithUnaryInterceptor(a.bound),
		grpc.WithUserAgent("sockctl/"+clientVersion()))
	if err != nil {
		return nil, err
	}
	c.listeners = pb.NewListenerServiceClient(c.conn)
	c.connections = pb.NewConnectionServiceClient(c.conn)
	c.tuning = pb.NewTuningServiceClient(c.conn)
	c.daemon = pb.NewDaemonServiceClient(c.conn)
	c.events = pb.NewEventServiceClient(c.conn)
	c.stats = pb.NewStatsServiceClient(c.conn)
	c.sockets = pb.NewSocketServiceClient(c.conn)
	a.client = c
	return c, nil
}

// close ends the connection, if there was one.
func (a *app) close() {
	if a.client != nil {
		// The run is over; an error here tells nobody anything.
		_ = a.client.conn.Close()
	}
}

// bound gives every call the time of --timeout.
func (a *app) bound(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	ctx, cancel := a.within(ctx, 0)
	defer cancel()
	for {
		err := invoke(ctx, method, req, reply, conn, opts...)
		if !isHandedOver(err) {
			return err
		}
		timer := time.NewTimer(handedOverPause)
		select { // the process that has taken over answers the next call
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

const handedOverPause = 20 * time.Millisecond

// isHandedOver reports whether the daemon has done nothing because it was being
// upgraded.
func isHandedOver(err error) bool {
	if err == nil || status.Code(err) != codes.Unavailable {
		return false
	}
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetMetadata()["handed_over"] == "true" {
			return true
		}
	}
	return false
}

func (c *client) connect(ctx context.Context, to target) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, to.network, to.address)
	c.mu.Lock()
	c.dialErr = err
	c.mu.Unlock()
	return conn, err
}

func (c *client) lastDialError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialErr
}

// systemWords returns the part of a dial error that the message around it
// does not say already.
func systemWords(err error) string {
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return call.Error()
	}
	return err.Error()
}

// allListeners returns all pages.
func (c *client) allListeners(ctx context.Context, filter string, view pb.ListenerView) ([]*pb.Listener, error) {
	return pages(func(token string) ([]*pb.Listener, string, error) {
		page, err := c.listeners.ListListeners(ctx, &pb.ListListenersRequest{
			PageSize: pageSize, PageToken: token, Filter: filter, View: view,
		})
		return page.GetListeners(), page.GetNextPageToken(), err
	})
}

// someConnections returns the first of what req asks for, all for 0. It changes
// req.
func (c *client) someConnections(ctx context.Context, req *pb.ListConnectionsRequest, most int) ([]*pb.Connection, error) {
	left := most
	return pages(func(token string) ([]*pb.Connection, string, error) {
		req.PageSize, req.PageToken = pageSize, token
		if most > 0 {
			req.PageSize = int32(min(left, pageSize))
		}
		page, err := c.connections.ListConnections(ctx, req)
		left -= len(page.GetConnections())
		if most > 0 && left <= 0 {
			return page.GetConnections(), "", err
		}
		return page.GetConnections(), page.GetNextPageToken(), err
	})
}

func pages[T any](get func(token string) (page []T, next string, err error)) ([]T, error) {
	var all []T
	token := ""
	for {
		page, next, err := get(token)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" {
			return all, nil
		}
		if next == token {
			return nil, failf(codes.Internal, "the daemon sends the same page again and again")
		}
		token = next
	}
}

func (c *client) listener(ctx context.Context, id string, view pb.ListenerView) (*pb.Listener, error) {
	resp, err := c.listeners.GetListener(ctx, &pb.GetListenerRequest{Name: listenerName(id), View: view})
	return resp.GetListener(), err
}
