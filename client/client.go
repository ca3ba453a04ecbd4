package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/internal/control"
)

// A Client is a connection to a daemon. Its methods may be called from any
// goroutine.
type Client struct {
	grpc    *grpc.ClientConn
	sockets pb.SocketServiceClient
	open    sync.WaitGroup // connections that are being closed
}

// DefaultAddress is where the daemon is: what SOCKMGR_ADDR says, or where one
// listens that this user has started.
func DefaultAddress() string {
	if addr := os.Getenv("SOCKMGR_ADDR"); addr != "" {
		return addr
	}
	return control.Address(os.Getenv, os.Geteuid())
}

// Dial makes a Client of the daemon at address: unix:///path, a bare path,
// tcp://host:port or, when it is empty, DefaultAddress. It does no I/O: the
// first call connects, and fails if nobody is there. Options are gRPC's: over
// TCP one says who is believed,
//
//	grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{...}))
func Dial(address string, options ...grpc.DialOption) (*Client, error) {
	if address == "" {
		address = DefaultAddress()
	}
	network, where := "unix", address
	switch scheme, rest, found := strings.Cut(address, "://"); {
	case found && (scheme == "unix" || scheme == "tcp") && rest != "":
		network, where = scheme, rest
	case strings.HasPrefix(address, "unix:") && !found:
		where = strings.TrimPrefix(address, "unix:")
	case !strings.HasPrefix(address, "/"):
		return nil, fmt.Errorf("address %q: want unix:///path, or tcp://host:port", address)
	}
	authority := "localhost"
	if network == "tcp" {
		authority = where
	}
	options = append([]grpc.DialOption{
		grpc.WithAuthority(authority),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, where)
		}),
		grpc.WithDisableServiceConfig(),
	}, options...)
	if network == "unix" {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials())) // the kernel says who is who
	}
	conn, err := grpc.NewClient("passthrough:///"+authority, options...)
	if err != nil {
		return nil, err
	}
	return New(conn), nil
}

// New makes a Client of a connection that one has; Close closes it.
func New(conn *grpc.ClientConn) *Client {
	return &Client{grpc: conn, sockets: pb.NewSocketServiceClient(conn)}
}

// GRPC is the connection to the daemon, for its other services:
// pb.NewListenerServiceClient(c.GRPC()).
func (c *Client) GRPC() *grpc.ClientConn { return c.grpc }

// lingerTime bounds how long Close waits for what was written before.
const lingerTime = 5 * time.Second

// Close waits, 5 s at most, until connections that were closed have sent what
// was written to them, and ends. The daemon closes the sockets of a client that
// is gone once they are unused for their idle timeout.
func (c *Client) Close() error {
	sent := make(chan struct{})
	go func() {
		c.open.Wait()
		close(sent)
	}()
	within(sent, lingerTime)
	err := c.grpc.Close()
	<-sent // without a connection they end at once
	return err
}
