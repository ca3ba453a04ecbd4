package service_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// certificate writes one that signs itself, and its key, to one file.
func certificate(t *testing.T, file, name string, until time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(until),
	}
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

// dialTLS connects and returns the name in the certificate.
func dialTLS(t *testing.T, l *pb.Listener) (c *tls.Conn, name string) {
	t.Helper()
	_, address, _ := strings.Cut(l.GetStatus().GetBound()[0].GetUri(), "://")
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c = tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"b", "a"}})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// says fails unless c echoes.
func says(t *testing.T, c net.Conn) {
	t.Helper()
	got := make([]byte, 5)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

// nextEvent waits for an event of a listener.
func (d *daemon) nextEvent(kind string) *pb.Event {
	d.t.Helper()
	stream, err := d.events.WatchEvents(d.ctx, &pb.WatchEventsRequest{Filter: `type = "` + kind + `"`, Tail: 1})
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		d.t.Fatal(err)
	}
	return r.GetEvent()
}

// A change of TLS is for new connections; one that cannot be is refused as a
// whole; what does not change it reads no file.
func TestTLSChanges(t *testing.T) {
	d := serve(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.pem"), filepath.Join(dir, "second.pem")
	certificate(t, first, "first", 90*24*time.Hour)
	certificate(t, second, "second", 90*24*time.Hour)
	spec := echoSpec("tcp://127.0.0.1:0")
	spec.Tls = &pb.TlsConfig{CertificateFile: first, HandshakeTimeout: durationpb.New(5 * time.Second), Alpn: []string{"a", "b"}}
	l := d.createSpec("safe", spec)
	if got := l.GetSpec().GetTls(); got.String() != spec.GetTls().String() {
		t.Errorf("%v became %v", spec.GetTls(), got)
	}
	old, name := dialTLS(t, l)
	says(t, old)
	if name != "first" || old.ConnectionState().NegotiatedProtocol != "a" {
		t.Errorf("%s, %s", name, old.ConnectionState().NegotiatedProtocol)
	}
	conns, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{})
	if err != nil || len(conns.GetConnections()) != 1 {
		t.Fatalf("%v, %v", conns, err)
	}
	if got := conns.GetConnections()[0].GetTls(); got.GetVersion() != "1.3" || got.GetAlpn() != "a" || got.GetCipherSuite() == "" {
		t.Errorf("%v", got)
	}

	update := func(change *pb.TlsConfig, check bool) error {
		_, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
			Listener:   &pb.Listener{Name: "listeners/safe", Spec: &pb.ListenerSpec{Tls: change}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec.tls"}}, ValidateOnly: check,
		})
		return err
	}
	for _, check := range []bool{true, false} {
		d.unchanged(func() {
			wantError(t, update(&pb.TlsConfig{CertificateFile: dir + "/none.pem", ClientCaFile: "/none"}, check), codes.FailedPrecondition, "TLS_INVALID", "spec.tls.certificate_file", "spec.tls.client_ca_file")
			wantError(t, update(&pb.TlsConfig{MinVersion: "1.0"}, check), codes.InvalidArgument, "SPEC_INVALID", "spec.tls.certificate_file", "spec.tls.min_version")
		})
	}
	if err := update(&pb.TlsConfig{CertificateFile: second}, false); err != nil {
		t.Fatal(err)
	}
	says(t, old)
	if c, name := dialTLS(t, l); name != "second" || c.ConnectionState().NegotiatedProtocol != "" {
		t.Errorf("after the change: %s", name)
	}

	// Files that are gone keep nothing from being done that does not need them.
	if err := os.Rename(second, second+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "safe"}); err != nil {
		t.Error(err)
	}
	if _, err := d.listeners.ResumeListener(d.ctx, &pb.ResumeListenerRequest{Name: "safe"}); err != nil {
		t.Error(err)
	}
	says(t, old)
	if e := d.nextEvent("tls.reload_failed"); e.GetResource() != "listeners/safe" || e.GetSeverity() != pb.Event_SEVERITY_ERROR || !strings.Contains(e.GetMessage(), "there is no file") {
		t.Errorf("%v", e)
	}
	if got := d.get("safe").GetStatus().GetTls(); !strings.Contains(got.GetLastError(), "there is no file") || got.GetCertificates()[0].GetNames()[0] != "second" {
		t.Errorf("%v", got)
	}
	if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "safe"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return d.get("safe").GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })
	_, err = d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "safe"})
	wantError(t, err, codes.FailedPrecondition, "TLS_INVALID", "spec.tls.certificate_file")
	if err := os.Rename(second+".away", second); err != nil {
		t.Fatal(err)
	}

	// Without TLS it is served by the loop again.
	if err := update(&pb.TlsConfig{}, false); err != nil {
		t.Fatal(err)
	}
	started, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "safe"})
	if err != nil || started.GetListener().GetSpec().GetTls() != nil || started.GetListener().GetStatus().GetTls() != nil {
		t.Fatalf("%v, %v", started, err)
	}
	says(t, ping(t, started.GetListener().GetStatus().GetBound()[0]))
}

// TLS can be put before a listener that runs, and taken away again: who is
// connected stays as it is.
func TestTLSComesAndGoes(t *testing.T) {
	d := serve(t)
	file := filepath.Join(t.TempDir(), "cert.pem")
	certificate(t, file, "safe", 90*24*time.Hour)
	l := d.create("safe", "tcp://127.0.0.1:0")
	plain := ping(t, l.GetStatus().GetBound()[0])
	over := []net.Conn{plain}
	for range 3 {
		for _, tls := range []*pb.TlsConfig{{CertificateFile: file}, nil} {
			_, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
				Listener:   &pb.Listener{Name: "listeners/safe", Spec: &pb.ListenerSpec{Tls: tls}},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec.tls"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if tls != nil {
				c, _ := dialTLS(t, l)
				over = append(over, c)
			} else {
				over = append(over, ping(t, l.GetStatus().GetBound()[0]))
			}
			for _, c := range over {
				says(t, c)
			}
		}
	}
}

// An operator hears of a certificate before it expires, once, and of a new one.
func TestTLSExpiry(t *testing.T) {
	d := serve(t)
	file := filepath.Join(t.TempDir(), "cert.pem")
	certificate(t, file, "soon", 3*24*time.Hour)
	spec := echoSpec("tcp://127.0.0.1:0")
	spec.Tls = &pb.TlsConfig{CertificateFile: file}
	d.createSpec("safe", spec)
	e := d.nextEvent("tls.expiring")
	if e.GetSeverity() != pb.Event_SEVERITY_WARNING || e.GetResource() != "listeners/safe" || !strings.Contains(e.GetMessage(), "expires in 72h") {
		t.Errorf("%v", e)
	}
	certificate(t, file, "later", 90*24*time.Hour)
	if e := d.nextEvent("tls.reloaded"); e.GetSeverity() != pb.Event_SEVERITY_INFO {
		t.Errorf("%v", e)
	}
	if got := d.get("safe").GetStatus().GetTls(); got.GetCertificates()[0].GetNames()[0] != "later" || got.GetLastError() != "" || got.GetLoadTime() == nil {
		t.Errorf("%v", got)
	}
	all, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{Filter: `type = "tls.expiring"`})
	if err != nil || len(all.GetEvents()) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}
