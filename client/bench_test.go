package client_test

import (
	"io"
	"net"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// What a socket call costs beside a call that does nothing, over the control
// socket of a daemon.
func BenchmarkCalls(b *testing.B) {
	c := startDaemon(b)
	ctx := b.Context()
	sockets, health := pb.NewSocketServiceClient(c.GRPC()), grpc_health_v1.NewHealthClient(c.GRPC())
	made, err := sockets.CreateSocket(ctx, &pb.CreateSocketRequest{Network: pb.Network_NETWORK_UDP})
	if err != nil {
		b.Fatal(err)
	}
	name := made.GetSocket().GetName()
	bound, err := sockets.Bind(ctx, &pb.BindRequest{Name: name, Address: "udp://127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := sockets.Connect(ctx, &pb.ConnectRequest{Name: name, Address: bound.GetLocal().GetUri()}); err != nil { // to itself
		b.Fatal(err)
	}
	for what, call := range map[string]func() error{
		"empty": func() error {
			_, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			return err
		},
		"send+recv": func() error {
			if _, err := sockets.Send(ctx, &pb.SendRequest{Name: name, Payload: []byte("hello")}); err != nil {
				return err
			}
			_, err := sockets.Recv(ctx, &pb.RecvRequest{Name: name})
			return err
		},
	} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What goes through a connection of the client's.
func BenchmarkConn(b *testing.B) {
	c := startDaemon(b)
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	go func() {
		if peer, err := sink.Accept(); err == nil {
			io.Copy(io.Discard, peer)
			peer.Close()
		}
	}()
	conn, err := c.DialContext(b.Context(), "tcp", sink.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	data := make([]byte, 64<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := conn.Write(data); err != nil {
			b.Fatal(err)
		}
	}
}
