package service_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/service"
)

// plain is a server that does nothing but what gRPC does.
type plain struct {
	pb.UnimplementedSocketServiceServer
}

// Stream sends as fast as gRPC takes it.
func (plain) Stream(stream grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) error {
	chunk := make([]byte, 64<<10)
	for {
		if err := stream.Send(&pb.StreamResponse{Payload: chunk}); err != nil {
			return err
		}
	}
}

// benchServe returns a connection to a server on a Unix socket.
func benchServe(b *testing.B, s *grpc.Server) *grpc.ClientConn {
	b.Helper()
	path := filepath.Join(b.TempDir(), "c")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(l)
	b.Cleanup(s.Stop)
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

func benchPlain(b *testing.B) *grpc.ClientConn {
	b.Helper()
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	pb.RegisterSocketServiceServer(s, plain{})
	return benchServe(b, s)
}

func benchDaemon(b *testing.B) pb.SocketServiceClient {
	b.Helper()
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Shutdown(context.Background(), 0) })
	root := hclog.NewNullLogger()
	return pb.NewSocketServiceClient(benchServe(b, service.NewServer(service.Config{
		Manager: m, Log: root, Loggers: service.NewLoggers(root), Info: &pb.DaemonInfo{},
	})))
}

// benchPair is a connection of the daemon and its peer.
func benchPair(b *testing.B, s pb.SocketServiceClient) (string, net.Conn) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	made, err := s.CreateSocket(b.Context(), &pb.CreateSocketRequest{Network: pb.Network_NETWORK_TCP})
	if err != nil {
		b.Fatal(err)
	}
	name := made.GetSocket().GetName()
	if _, err := s.Connect(b.Context(), &pb.ConnectRequest{Name: name, Address: fmt.Sprintf("tcp://%v", l.Addr())}); err != nil {
		b.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { peer.Close() })
	return name, peer
}

// A pair of Recv and Send beside a call that does nothing: less than four times
// its time.
func BenchmarkSocketCalls(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		client := grpc_health_v1.NewHealthClient(benchPlain(b))
		for b.Loop() {
			if _, err := client.Check(b.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("send+recv", func(b *testing.B) {
		s := benchDaemon(b)
		made, err := s.CreateSocket(b.Context(), &pb.CreateSocketRequest{Network: pb.Network_NETWORK_UDP})
		if err != nil {
			b.Fatal(err)
		}
		name := made.GetSocket().GetName()
		bound, err := s.Bind(b.Context(), &pb.BindRequest{Name: name, Address: "udp://127.0.0.1:0"})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Connect(b.Context(), &pb.ConnectRequest{Name: name, Address: bound.GetLocal().GetUri()}); err != nil { // to itself
			b.Fatal(err)
		}
		payload := make([]byte, 64)
		for b.Loop() {
			if _, err := s.Send(b.Context(), &pb.SendRequest{Name: name, Payload: payload}); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Recv(b.Context(), &pb.RecvRequest{Name: name}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A stream of bytes from a connection beside one that gRPC makes up: at least
// half as fast.
func BenchmarkStream(b *testing.B) {
	receive := func(b *testing.B, s pb.SocketServiceClient, name string) {
		b.Helper()
		stream, err := s.Stream(b.Context())
		if err == nil {
			err = stream.Send(&pb.StreamRequest{Name: name})
		}
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(64 << 10)
		got := 0
		for want := 0; b.Loop(); {
			for want += 64 << 10; got < want; {
				resp, err := stream.Recv()
				if err != nil {
					b.Fatal(err)
				}
				got += len(resp.GetPayload())
			}
		}
	}
	b.Run("plain", func(b *testing.B) { receive(b, pb.NewSocketServiceClient(benchPlain(b)), "") })
	b.Run("socket", func(b *testing.B) {
		s := benchDaemon(b)
		name, peer := benchPair(b, s)
		go func() {
			chunk := make([]byte, 256<<10)
			for {
				if _, err := peer.Write(chunk); err != nil {
					return
				}
			}
		}()
		receive(b, s, name)
	})
}
