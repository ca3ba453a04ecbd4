package client

import (
	"context"
	"net"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// networks are those of connections.
var networks = map[string]struct {
	network   pb.Network
	ipVersion uint32
}{
	"tcp": {pb.Network_NETWORK_TCP, 0}, "tcp4": {pb.Network_NETWORK_TCP, 4}, "tcp6": {pb.Network_NETWORK_TCP, 6},
	"unix": {pb.Network_NETWORK_UNIX, 0},
}

// socket makes one for network.
func (c *Client) socket(ctx context.Context, network string, options map[string]*structpb.Value) (*pb.Socket, error) {
	kind, ok := networks[network]
	if !ok {
		return nil, net.UnknownNetworkError(network)
	}
	made, err := c.sockets.CreateSocket(ctx, &pb.CreateSocketRequest{Network: kind.network, IpVersion: kind.ipVersion, Options: options})
	return made.GetSocket(), err
}

// DialContext connects from the daemon's host, as net.Dialer does from this
// one: network is tcp, tcp4, tcp6 or unix, and names are the daemon's to resolve.
// ctx is for connecting only.
func (c *Client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	failed := func(err error) (net.Conn, error) { return nil, opError("dial", nil, addr{network, address}, err) }
	s, err := c.socket(ctx, network, nil)
	if err != nil {
		return failed(err)
	}
	resp, err := c.sockets.Connect(ctx, &pb.ConnectRequest{Name: s.GetName(), Address: network + "://" + address})
	if err != nil {
		c.closeSocket(s.GetName())
		return failed(err)
	}
	conn, err := c.stream(resp.GetSocket())
	if err != nil {
		return failed(err)
	}
	return conn, nil
}

// closeSocket is for a socket that nobody has. If it fails, the daemon does it
// after a while.
func (c *Client) closeSocket(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
	defer cancel()
	_, _ = c.sockets.CloseSocket(ctx, &pb.CloseSocketRequest{Name: name})
}

// An addr is an address that is not known as numbers.
type addr struct{ network, address string }

func (a addr) Network() string { return a.network }
func (a addr) String() string  { return a.address }

// netAddr is an address as package net has it.
func netAddr(a *pb.SocketAddress) net.Addr {
	if ip := net.ParseIP(a.GetIp()); ip != nil {
		return &net.TCPAddr{IP: ip, Port: int(a.GetPort()), Zone: a.GetZone()}
	}
	network, _, _ := strings.Cut(a.GetUri(), ":")
	return &net.UnixAddr{Net: network, Name: a.GetPath()}
}
