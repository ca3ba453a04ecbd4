//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// selfSigned writes a certificate and its key to one file.
func selfSigned(t *testing.T, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// preface is how a client of gRPC begins: with an empty SETTINGS, as the server does.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// TLS connections stay in the process before when the daemon is upgraded. Such a
// process connects to the control addresses for anybody, with the rights of the
// daemon's user: it is refused as the daemon itself is, after the next daemon was
// killed, too, by one that knows nothing of it.
func TestFormerDaemonIsNotLetIn(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, dir, "--control", "tcp://127.0.0.1:0", "--insecure-loopback", "--log-level", "info")
	conn := s.api(t)
	ctx := t.Context()
	info, err := pb.NewDaemonServiceClient(conn).GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	selfSigned(t, dir+"/pem")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir+"/c", link); err != nil {
		t.Fatal(err)
	}
	ways := map[string]string{"path": "unix://" + dir + "/c", "link": "unix://" + link, "tcp": info.GetInfo().GetControl()[1].GetUri()}
	waiting := map[string][]*tls.Conn{}
	for name, to := range ways {
		spec := handled(&pb.Handler{Kind: &pb.Handler_Forward{Forward: &pb.ForwardHandler{Upstreams: []*pb.Upstream{{Address: to}}}}}, "tcp://127.0.0.1:0")
		spec.Tls = &pb.TlsConfig{CertificateFile: dir + "/pem", HandshakeTimeout: durationpb.New(time.Minute)}
		address := serve(ctx, t, conn, name, spec)
		for range 2 {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			waiting[name] = append(waiting[name], tls.Client(c, &tls.Config{InsecureSkipVerify: true})) //nolint:gosec // it is the test's own
		}
	}
	connected := func() bool {
		r, err := pb.NewConnectionServiceClient(conn).ListConnections(ctx, &pb.ListConnectionsRequest{})
		return err == nil && len(r.GetConnections()) == 2*len(ways)
	}
	waitFor(t, connected)
	before := daemonPid(ctx, t, conn)
	if _, err := upgrade(ctx, conn, &pb.UpgradeRequest{DrainTimeout: durationpb.New(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	now := daemonPid(ctx, t, conn) // a client that stays connected calls the new one, while the old one drains
	if now == before || syscall.Kill(before, 0) != nil {
		t.Fatalf("pid %d, was %d, which has ended", now, before)
	}
	refused := func(when, name string) {
		t.Helper()
		c := waiting[name][0]
		waiting[name] = waiting[name][1:]
		_ = c.SetDeadline(time.Now().Add(patience))
		if err := c.HandshakeContext(ctx); err != nil {
			t.Fatalf("%s: %s does not serve its client: %v", when, name, err)
		}
		_, _ = io.WriteString(c, preface) // or it is closed already
		got, err := io.ReadAll(c)
		if len(got) > 0 {
			t.Errorf("%s: who comes through the daemon before (%s) is answered: %q, %v", when, name, got, err)
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // as net has it
			t.Errorf("%s: %s: nobody says no: %v", when, name, err)
		}
	}
	for name := range ways {
		refused("upgraded", name)
	}
	waitFor(t, func() bool { // the log has a line a moment after its cause
		text, err := os.ReadFile(s.log.Name())
		return err == nil && strings.Contains(string(text), "the daemon itself has connected to its control address")
	})
	if err := syscall.Kill(now, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return daemonPid(ctx, t, conn) != now })
	if syscall.Kill(before, 0) != nil {
		t.Fatal("the daemon before has ended")
	}
	refused("killed", "path")
	refused("killed", "link")
	if err := syscall.Kill(before, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}
