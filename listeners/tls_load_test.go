package listeners_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// What can be told without looking at a file is refused as part of the spec.
func TestTLSPolicyFaults(t *testing.T) {
	good := listeners.TLSPair{Certificate: "/x/cert.pem", Key: "/x/key.pem"}
	for _, c := range []struct {
		handler     listeners.HandlerSpec
		listen      string
		policy      listeners.TLSPolicy
		field, text string
	}{
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{}, "spec.tls.certificate_file", "is missing"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{{Certificate: "cert.pem"}}}, "spec.tls.certificate_file", "absolute"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good, {Key: "key.pem"}}}, "spec.tls.more_certificates[0].certificate_file", "is missing"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: make([]listeners.TLSPair, 66)}, "spec.tls.more_certificates", "at most 64"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}, ClientCA: "ca"}, "spec.tls.client_ca_file", "absolute"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}, MinVersion: "1.1"}, "spec.tls.min_version", "1.2 or 1.3"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}, ALPN: []string{"a", "a"}}, "spec.tls.alpn[1]", "twice"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}, ALPN: []string{strings.Repeat("x", 256)}}, "spec.tls.alpn[0]", "255"},
		{listeners.Echo{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}, Handshake: 2 * time.Hour}, "spec.tls.handshake_timeout", "1h"},
		{&listeners.HTTP{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}, ALPN: []string{"h2"}}, "spec.tls.alpn", "http/1.1"},
		{listeners.Echo{}, "udp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}}, "spec.tls", "streams"},
		{listeners.Echo{}, "unixpacket:///x/y", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}}, "spec.tls", "streams"},
		{&listeners.Handoff{Path: "/x/y"}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}}, "spec.tls", "handoff"},
		{&listeners.Remote{}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}}, "spec.tls", "remote"},
		{&listeners.Exec{Command: []string{"/bin/cat"}}, "tcp://127.0.0.1:0", listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}}, "spec.tls", "exec"},
	} {
		_, err := spec(t, c.handler, "", c.listen).WithTLS(&c.policy)
		v := listeners.Violations(err)
		if len(v) == 0 || v[0].Field != c.field || !strings.Contains(v[0].Message, c.text) {
			t.Errorf("%s at %s: %v, want %s ... %s", c.handler.Kind(), c.listen, err, c.field, c.text)
		}
	}
	s := withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{Certificates: []listeners.TLSPair{good}})
	if _, err := s.WithConcurrency(listeners.OnLoop); !errors.Is(err, listeners.SpecInvalid) || !strings.Contains(err.Error(), "thread") {
		t.Errorf("on the loop: %v", err)
	}
}

// A policy is saved and read back as it was.
func TestTLSPolicySaved(t *testing.T) {
	s := withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{{Certificate: "/a", Key: "/b"}, {Certificate: "/c"}}, ClientCA: "/d", MinVersion: "1.3",
		ALPN: []string{"h2", "http/1.1"}, Handshake: time.Second,
	})
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back listeners.Spec
	if err := json.Unmarshal(text, &back); err != nil || !back.Equal(s) || !back.SameTLS(s) {
		t.Errorf("%s\n%v, %+v", text, err, back.TLS)
	}
	if other := withTLS(t, s, &listeners.TLSPolicy{Certificates: s.TLS.Certificates}); other.Equal(s) || other.SameTLS(s) {
		t.Error("another policy is the same")
	}
}

// What cannot be used is refused when the listener is opened, with the field,
// the file and the reason.
func TestTLSFilesRefused(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	good := a.issue("good", "example.com")
	other := a.issue("other", "example.com")
	file := func(name, text string) string { return a.write(name, []byte(text)) }
	dated := func(name string, from, until time.Duration) string {
		cert, key := a.sign(ecKey(t), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(until)
		}, "example.com")
		return file(name, string(cert)+string(key))
	}
	secret := file("secret.pem", "x")
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(a.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	encrypted := file("encrypted.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	long := file("long.pem", strings.Repeat("x", 1<<20+1))
	broken := file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for what, c := range map[string]struct {
		pair, more  listeners.TLSPair
		ca          string
		field, text string
	}{
		"no file":         {pair: listeners.TLSPair{Certificate: "/nowhere/x.pem"}, field: "certificate_file", text: "there is no file /nowhere/x.pem"},
		"no key file":     {pair: listeners.TLSPair{Certificate: good.Certificate, Key: "/nowhere/k.pem"}, field: "key_file", text: "there is no file /nowhere/k.pem"},
		"a directory":     {pair: listeners.TLSPair{Certificate: a.dir}, field: "certificate_file", text: "not a regular file"},
		"a pipe":          {pair: listeners.TLSPair{Certificate: pipe}, field: "certificate_file", text: "not a regular file"},
		"too long":        {pair: listeners.TLSPair{Certificate: long}, field: "certificate_file", text: "more than 1048576 bytes"},
		"not PEM":         {pair: listeners.TLSPair{Certificate: file("text", "hello"), Key: good.Key}, field: "certificate_file", text: "no certificate in PEM"},
		"broken":          {pair: listeners.TLSPair{Certificate: broken, Key: good.Key}, field: "certificate_file", text: "certificate 1 in " + broken},
		"no key in it":    {pair: listeners.TLSPair{Certificate: good.Certificate}, field: "certificate_file", text: "no private key in PEM"},
		"encrypted":       {pair: listeners.TLSPair{Certificate: good.Certificate, Key: encrypted}, field: "key_file", text: "openssl pkey"},
		"another key":     {pair: listeners.TLSPair{Certificate: good.Certificate, Key: other.Key}, field: "key_file", text: "is not that of the certificate in " + good.Certificate},
		"expired":         {pair: listeners.TLSPair{Certificate: dated("expired.pem", -2*time.Hour, -time.Hour)}, field: "certificate_file", text: "has expired"},
		"not yet valid":   {pair: listeners.TLSPair{Certificate: dated("early.pem", time.Hour, 2*time.Hour)}, field: "certificate_file", text: "not valid yet"},
		"the second":      {pair: good, more: listeners.TLSPair{Certificate: good.Certificate, Key: other.Key}, field: "more_certificates[0].key_file", text: "is not that of"},
		"no CA":           {pair: good, ca: "/nowhere/ca.pem", field: "client_ca_file", text: "there is no file"},
		"a CA without it": {pair: good, ca: good.Key, field: "client_ca_file", text: "no certificate in PEM"},
		"a broken CA":     {pair: good, ca: broken, field: "client_ca_file", text: "cannot be read"},
	} {
		p := &listeners.TLSPolicy{Certificates: []listeners.TLSPair{c.pair}, ClientCA: c.ca}
		if c.more != (listeners.TLSPair{}) {
			p.Certificates = append(p.Certificates, c.more)
		}
		l, err := listeners.Open("test", withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), p))
		if err == nil {
			l.Close()
		}
		v := listeners.Violations(err)
		if len(v) != 1 || v[0].Field != "spec.tls."+c.field || !strings.Contains(v[0].Message, c.text) || !errors.Is(err, listeners.TLSInvalid) {
			t.Errorf("%s: %v, want spec.tls.%s ... %s", what, err, c.field, c.text)
		}
	}
	if os.Getuid() != 0 { // whom nothing is forbidden
		_, err := listeners.Open("test", withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{Certificates: []listeners.TLSPair{{Certificate: secret}}}))
		if err == nil || !strings.Contains(err.Error(), "may not read") {
			t.Errorf("a file of others: %v", err)
		}
	}
}
