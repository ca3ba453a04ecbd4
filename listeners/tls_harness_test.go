package listeners_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// An authority issues certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
	file string // its certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	a.key = ecKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * 365 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	a.file = a.write("ca.pem", pemOf("CERTIFICATE", raw))
	return a
}

func ecKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemOf(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}

// write replaces a file as a tool that is careful does.
func (a *authority) write(name string, text []byte) string {
	a.t.Helper()
	name = filepath.Join(a.dir, name)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		a.t.Fatal(err)
	}
	return name
}

var serials = time.Now().UnixNano()

// sign returns the texts of a certificate for the names, and of its key. A
// template may say otherwise.
func (a *authority) sign(key crypto.Signer, edit func(*x509.Certificate), names ...string) (cert, keyText []byte) {
	a.t.Helper()
	serials++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if edit != nil {
		edit(template)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pemOf("CERTIFICATE", raw), pemOf("PRIVATE KEY", rawKey)
}

// issue writes a certificate and its key to files of that name.
func (a *authority) issue(file string, names ...string) listeners.TLSPair {
	a.t.Helper()
	cert, key := a.sign(ecKey(a.t), nil, names...)
	return listeners.TLSPair{Certificate: a.write(file+".pem", cert), Key: a.write(file+"-key.pem", key)}
}

// client returns the configuration of a client of example.com that trusts the
// authority.
func (a *authority) client() *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: "example.com"}
}

// withCertificate adds a client certificate.
func (a *authority) withCertificate(c *tls.Config, name string) {
	a.t.Helper()
	certText, keyText := a.sign(ecKey(a.t), nil, name)
	cert, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		a.t.Fatal(err)
	}
	c.Certificates = []tls.Certificate{cert}
}

func withTLS(t *testing.T, s listeners.Spec, p *listeners.TLSPolicy) listeners.Spec {
	t.Helper()
	s, err := s.WithTLS(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dialTLS connects and does the handshake.
func dialTLS(t *testing.T, to net.Addr, c *tls.Config) *tls.Conn {
	t.Helper()
	over := tls.Client(dial(t, to), c)
	if err := over.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return over
}
