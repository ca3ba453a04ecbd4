package listeners

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"time"
)

// TLSPolicy is TLS termination: what is wanted, not what the files say. It is
// not changed once it is part of a Spec.
type TLSPolicy struct {
	Certificates []TLSPair     `json:"certificates"` // the first is for who asks for no name that one has
	ClientCA     string        `json:"client_ca,omitempty"`
	MinVersion   string        `json:"min_version,omitempty"` // empty: 1.2
	ALPN         []string      `json:"alpn,omitempty"`        // best first
	Handshake    time.Duration `json:"handshake,omitempty"`   // 0: defaultHandshake
}

// A TLSPair is the files of a certificate chain and of its key.
type TLSPair struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key,omitempty"` // empty: it is in the same file
}

// keyFile is where the key is.
func (p TLSPair) keyFile() string { return cmp.Or(p.Key, p.Certificate) }

const (
	defaultHandshake = 10 * time.Second
	maxPairs         = 1 + 64
	maxALPN          = 32
)

// tlsVersions are the words of MinVersion. Never written to.
var tlsVersions = map[string]uint16{"": tls.VersionTLS12, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// WithTLS returns a copy of s that terminates TLS; with nil it does not.
func (s Spec) WithTLS(p *TLSPolicy) (Spec, error) {
	s.TLS = p
	if p == nil {
		return s, nil
	}
	faults := []error{p.check()}
	bad := func(field, format string, args ...any) {
		faults = append(faults, &Violation{Field: "spec.tls" + field, Message: fmt.Sprintf(format, args...)})
	}
	for _, a := range s.Listen {
		if a.Network != Unix && a.Network.Class() != OnTCP {
			bad("", "is not for %v: it is for streams", a)
		}
	}
	switch h := s.Handler.(type) {
	case *Exec, *Handoff:
		bad("", "is not for the %s handler: the process reads the connection itself, not the daemon", h.Kind())
	case *Remote:
		bad("", "is not for the remote handler: its clients get what is read as it is")
	case *Forward:
		if len(h.Routes) > 0 {
			bad("", "is not for routes, which forward TLS as it is: leave out one of the two")
		}
	case *HTTP:
		if slices.Contains(p.ALPN, "h2") {
			bad(".alpn", "has h2, which the http handler does not speak: it speaks http/1.1")
		}
	}
	return s, errors.Join(faults...)
}

// check returns every fault that can be told without looking at a file.
func (p *TLSPolicy) check() error {
	var faults []error
	bad := func(field, format string, args ...any) {
		faults = append(faults, &Violation{Field: "spec.tls." + field, Message: fmt.Sprintf(format, args...)})
	}
	absolute := func(field, name string) {
		if name != "" && (!path.IsAbs(name) || !isText(name) || len(name) > maxFileName) {
			bad(field, "%.80q is not an absolute path", name)
		}
	}
	if len(p.Certificates) > maxPairs {
		bad("more_certificates", "has %d; at most %d", len(p.Certificates)-1, maxPairs-1)
	}
	if len(p.Certificates) == 0 {
		bad("certificate_file", "is missing")
	}
	for i, pair := range p.Certificates {
		if pair.Certificate == "" {
			bad(pairField(i)+"certificate_file", "is missing")
		}
		absolute(pairField(i)+"certificate_file", pair.Certificate)
		absolute(pairField(i)+"key_file", pair.Key)
	}
	absolute("client_ca_file", p.ClientCA)
	if _, known := tlsVersions[p.MinVersion]; !known {
		bad("min_version", "%.20q is not known: it is 1.2 or 1.3", p.MinVersion)
	}
	if len(p.ALPN) > maxALPN {
		bad("alpn", "has %d names; at most %d", len(p.ALPN), maxALPN)
	}
	for i, name := range p.ALPN {
		if name == "" || len(name) > 255 || !isText(name) || slices.Contains(p.ALPN[:i], name) {
			bad(fmt.Sprintf("alpn[%d]", i), "%.40q is not a name of 1 to 255 bytes, or is there twice", name)
		}
	}
	if p.Handshake < 0 || p.Handshake > time.Hour {
		bad("handshake_timeout", "%v is out of range: from 0s, which is the default, to 1h", p.Handshake)
	}
	return errors.Join(faults...)
}

// maxFileName is PATH_MAX.
const maxFileName = 4096

// pairField is what comes before the fields of the i-th pair: the first is not
// in the list of the others.
func pairField(i int) string {
	if i == 0 {
		return ""
	}
	return fmt.Sprintf("more_certificates[%d].", i-1)
}

// SameTLS reports whether two Specs want the same of TLS.
func (s Spec) SameTLS(other Spec) bool { return reflect.DeepEqual(s.TLS, other.TLS) }
