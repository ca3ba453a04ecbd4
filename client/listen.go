package client

import (
	"context"
	"net"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A Listener takes connections that the daemon has accepted.
type Listener struct {
	c     *Client
	name  string
	addr  net.Addr
	made  bool // the socket is ours
	ctx   context.Context
	close context.CancelFunc
}

// Listen takes the connections of the daemon's listener with that name, which
// has the handler remote; several clients may, and share them. The listener
// stays when the Listener is closed, and its next connections wait.
//
// A name such as tcp://127.0.0.1:0 or unix:///run/x.sock makes a socket there,
// which is closed with the Listener. ctx is for that only.
func (c *Client) Listen(ctx context.Context, name string) (*Listener, error) {
	l := &Listener{c: c, name: name}
	var err error
	if strings.Contains(name, "://") {
		err = l.make(ctx, name)
	} else {
		err = l.find(ctx, name)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Addr: addr{"", name}, Err: cause(err)}
	}
	l.ctx, l.close = context.WithCancel(context.Background())
	return l, nil
}

// make makes a socket that listens.
func (l *Listener) make(ctx context.Context, uri string) error {
	network, _, _ := strings.Cut(uri, ":")
	var options map[string]*structpb.Value
	if strings.HasPrefix(network, "tcp") { // as net.Listen has it: connections that have ended do not keep the port
		options = map[string]*structpb.Value{"reuse_address": structpb.NewBoolValue(true)}
	}
	s, err := l.c.socket(ctx, network, options)
	if err != nil {
		return err
	}
	l.name, l.made = s.GetName(), true
	bound, err := l.c.sockets.Bind(ctx, &pb.BindRequest{Name: l.name, Address: uri})
	if err == nil {
		_, err = l.c.sockets.Listen(ctx, &pb.ListenRequest{Name: l.name})
	}
	if err != nil {
		l.c.closeSocket(l.name)
	}
	l.addr = netAddr(bound.GetLocal())
	return err
}

// find finds the daemon's listener.
func (l *Listener) find(ctx context.Context, name string) error {
	l.name = "listeners/" + strings.TrimPrefix(name, "listeners/")
	resp, err := pb.NewListenerServiceClient(l.c.grpc).GetListener(ctx, &pb.GetListenerRequest{Name: l.name})
	if err != nil {
		return err
	}
	found := resp.GetListener()
	l.addr = addr{"", name}
	if bound := found.GetStatus().GetBound(); len(bound) > 0 {
		l.addr = netAddr(bound[0])
	}
	return nil
}

// Accept is net.Listener.Accept.
func (l *Listener) Accept() (net.Conn, error) {
	resp, err := l.c.sockets.Accept(l.ctx, &pb.AcceptRequest{Name: l.name})
	if err == nil {
		var conn net.Conn
		if conn, err = l.c.stream(resp.GetSocket()); err == nil {
			return conn, nil
		}
	}
	if l.ctx.Err() != nil {
		err = net.ErrClosed
	}
	return nil, opError("accept", nil, l.addr, err)
}

// Close is net.Listener.Close.
func (l *Listener) Close() error {
	if l.ctx.Err() != nil {
		return &net.OpError{Op: "close", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
	l.close()
	if l.made {
		l.c.closeSocket(l.name)
	}
	return nil
}

// Addr is where it listens; the first address of several.
func (l *Listener) Addr() net.Addr { return l.addr }
