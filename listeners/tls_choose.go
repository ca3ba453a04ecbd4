package listeners

import (
	"crypto/tls"
	"strings"
)

// A chooser finds the certificate for the name that a client asks for (SNI).
// Names may have several, of keys of different kinds: what the client knows is
// taken. It does not change.
type chooser struct {
	all    []*tls.Certificate
	byName map[string][]*tls.Certificate // in lower case, wildcards as *.example.com
}

func newChooser(pairs []tlsPair) *chooser {
	c := &chooser{byName: map[string][]*tls.Certificate{}}
	for _, p := range pairs {
		c.all = append(c.all, p.Certificate)
		for _, name := range p.Leaf.DNSNames {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			c.byName[name] = append(c.byName[name], p.Certificate)
		}
	}
	return c
}

// choose is tls.Config.GetCertificate: exact names before wildcards, and for a
// name that no certificate has, the first.
func (c *chooser) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(c.all) == 1 {
		return c.all[0], nil
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	_, parent, _ := strings.Cut(name, ".")
	nameless := *hello
	nameless.ServerName = "" // which is compared already
	for _, some := range [][]*tls.Certificate{c.byName[name], c.byName["*."+parent], c.all} {
		for _, cert := range some {
			if nameless.SupportsCertificate(cert) == nil {
				return cert, nil
			}
		}
	}
	return c.all[0], nil // the handshake says what the client does not know
}
