package cli

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// target is where a daemon is, and how one is known there.
type target struct {
	network, address, authority string
	credentials                 credentials.TransportCredentials
}

// certificates are the files for a daemon over TCP.
type certificates struct{ cert, key, ca string }

// target reads an address: unix:///path, unix:path, a bare path, or
// tcp://host:port, which is for TLS. Without a certificate it is for a daemon of
// this host that takes plaintext.
func (a *app) target(addr string) (target, error) {
	if rest, ok := strings.CutPrefix(addr, "tcp://"); ok {
		return a.tcpTarget(rest)
	}
	path, isURI := strings.CutPrefix(addr, "unix:")
	path = strings.TrimPrefix(path, "//")
	if isURI && path == "" || !isURI && !strings.HasPrefix(addr, "/") {
		return target{}, usagef("address %q: want unix:///path, or tcp://host:port", addr).
			try("--addr unix:///run/sockmgr/control.sock")
	}
	// The kernel says who is who.
	return target{network: "unix", address: path, authority: "localhost", credentials: insecure.NewCredentials()}, nil
}

func (a *app) tcpTarget(hostport string) (target, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || host == "" || port == "" {
		return target{}, usagef("address %q: want tcp://host:port", "tcp://"+hostport)
	}
	t := target{network: "tcp", address: hostport, authority: hostport, credentials: insecure.NewCredentials()}
	files := certificates{
		cert: cmp.Or(a.tls.cert, a.env.Getenv("SOCKMGR_CERT")),
		key:  cmp.Or(a.tls.key, a.env.Getenv("SOCKMGR_KEY")),
		ca:   cmp.Or(a.tls.ca, a.env.Getenv("SOCKMGR_CA")),
	}
	if files == (certificates{}) {
		if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
			return t, nil
		}
		return t, usagef("tcp://%s: a daemon on another host is spoken to over TLS, with a certificate", hostport).
			try("--cert FILE --key FILE --ca FILE")
	}
	config, err := files.load()
	if err != nil {
		return t, err
	}
	t.credentials = credentials.NewTLS(config)
	return t, nil
}

// load reads the files. Without a CA those of the system are believed.
func (c certificates) load() (*tls.Config, error) {
	if c.cert == "" {
		return nil, usagef("--cert: the daemon knows its callers over TCP by their certificates").try("--cert FILE --key FILE --ca FILE")
	}
	pair, err := tls.LoadX509KeyPair(c.cert, cmp.Or(c.key, c.cert))
	if err != nil {
		return nil, usagef("--cert %s, --key %s: %v", c.cert, cmp.Or(c.key, c.cert), err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	if c.ca == "" {
		return config, nil
	}
	text, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, usagef("--ca: %v", err)
	}
	if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, usagef("--ca %s: has no certificate in PEM", c.ca)
	}
	return config, nil
}
