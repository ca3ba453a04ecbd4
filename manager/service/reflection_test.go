package service_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager/access"
	"github.com/sockmgr/sockmgr/manager/service"
)

// An admin over TCP is refused reflection, with a certificate and as a user of
// this host; over a Unix socket TestReflection has it.
func TestReflectionOverTCP(t *testing.T) {
	d := serve(t)
	file := filepath.Join(t.TempDir(), "both.pem")
	certificate(t, file, "ops.example.com", time.Hour)
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	rules, err := access.NewRules(uint32(os.Geteuid()), []access.Rule{{Certificate: "dns:ops.example.com", Role: "admin"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config service.Config
		client credentials.TransportCredentials
	}{
		"certificate": {
			service.Config{Access: rules, TLS: func() *tls.Config {
				return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientCAs: pool}
			}},
			credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "ops.example.com"}),
		},
		"user": {service.Config{InsecureLoopback: true}, insecure.NewCredentials()},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Manager, c.config.Log, c.config.Info = d.manager, hclog.NewNullLogger(), &pb.DaemonInfo{}
			server := service.NewServer(c.config)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			defer func() {
				server.Stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			}()
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(c.client), grpc.WithDisableServiceConfig())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			who, err := pb.NewDaemonServiceClient(conn).WhoAmI(d.ctx, &pb.WhoAmIRequest{})
			if err != nil || who.GetRole() != pb.Role_ROLE_ADMIN {
				t.Fatalf("%v, %v", who, err)
			}
			stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(d.ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			wantError(t, err, codes.PermissionDenied, "ROLE_MISSING")
		})
	}
}
