package listeners_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	stdnetip "net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// echoesTLS fails unless c gives back what it is sent.
func echoesTLS(t *testing.T, c net.Conn, data []byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// webClientTLS makes requests over TLS, each over a connection of its own unless
// it keeps them.
func webClientTLS(t *testing.T, c *tls.Config, keep bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: c, DisableKeepAlives: !keep}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func fetch(c *http.Client, to net.Addr) (string, error) {
	r, err := c.Get("https://" + to.String() + "/")
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return fmt.Sprint(r.StatusCode, " ", string(body)), err
}

// Handlers know nothing of it: all that they are sent and say is as without.
func TestTLSHandlers(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		a := newAuthority(t)
		policy := &listeners.TLSPolicy{Certificates: []listeners.TLSPair{a.issue("server", "example.com")}}
		data := bytes.Repeat([]byte("0123456789abcdef"), 40000)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := a.client()
			config.MinVersion, config.MaxVersion = version, version

			l := h.open(withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "unix://"+shortDir(t)+"/s"), policy))
			for i := range 2 {
				c := dialTLS(t, h.addr(l, i), config)
				echoesTLS(t, c, data)
				echoesTLS(t, c, []byte("x"))
				c.Close()
			}
			back := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
			l = h.open(withTLS(t, spec(t, forwardTo(h.addr(back, 0)), "", "tcp://127.0.0.1:0"), policy))
			c := dialTLS(t, h.addr(l, 0), config)
			echoesTLS(t, c, data)
			c.Close()

			l = h.open(withTLS(t, spec(t, &listeners.Reply{Payload: data}, "", "tcp://127.0.0.1:0"), policy))
			c = dialTLS(t, h.addr(l, 0), config)
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
				t.Errorf("reply: %d bytes, %v", len(got), err)
			}
			c.Close()

			l = h.open(withTLS(t, spec(t, &listeners.HTTP{Body: []byte("hello")}, "", "tcp://127.0.0.1:0"), policy))
			web := webClientTLS(t, config, true)
			for range 3 {
				if got, err := fetch(web, h.addr(l, 0)); err != nil || got != "200 hello" {
					t.Errorf("http: %q, %v", got, err)
				}
			}
			if st := h.stats(l); st.Accepted != 1 {
				t.Errorf("%d connections for three requests", st.Accepted)
			}
			web.CloseIdleConnections()
		}
	})
}

// What was agreed on is told, with the client's certificate.
func TestTLSAgreed(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a := newAuthority(t)
	pair := a.issue("server", "example.com")
	for _, c := range []struct {
		policy  listeners.TLSPolicy
		client  func(*tls.Config)
		want    listeners.TLSInfo // CipherSuite is not compared
		refused bool
	}{
		{want: listeners.TLSInfo{Version: "1.3", ServerName: "example.com"}},
		{client: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, want: listeners.TLSInfo{Version: "1.2", ServerName: "example.com"}},
		{client: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, refused: true},
		{policy: listeners.TLSPolicy{MinVersion: "1.3"}, client: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, refused: true},
		{policy: listeners.TLSPolicy{MinVersion: "1.3"}, want: listeners.TLSInfo{Version: "1.3", ServerName: "example.com"}},
		{
			policy: listeners.TLSPolicy{ALPN: []string{"h2", "http/1.1"}}, client: func(c *tls.Config) { c.NextProtos = []string{"http/1.1", "h2"} },
			want: listeners.TLSInfo{Version: "1.3", ServerName: "example.com", ALPN: "h2"},
		},
		{
			policy: listeners.TLSPolicy{ALPN: []string{"h2", "http/1.1"}}, client: func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} },
			want: listeners.TLSInfo{Version: "1.3", ServerName: "example.com", ALPN: "http/1.1"},
		},
		{policy: listeners.TLSPolicy{ALPN: []string{"h2"}}, want: listeners.TLSInfo{Version: "1.3", ServerName: "example.com"}},
		{policy: listeners.TLSPolicy{ALPN: []string{"h2"}}, client: func(c *tls.Config) { c.NextProtos = []string{"spdy/1"} }, refused: true},
		{policy: listeners.TLSPolicy{ClientCA: a.file}, refused: true},
		{policy: listeners.TLSPolicy{ClientCA: a.file}, client: func(c *tls.Config) { newAuthority(t).withCertificate(c, "stranger") }, refused: true},
		{
			policy: listeners.TLSPolicy{ClientCA: a.file}, client: func(c *tls.Config) { a.withCertificate(c, "member") },
			want: listeners.TLSInfo{Version: "1.3", ServerName: "example.com", ClientSubject: "CN=member"},
		},
	} {
		c.policy.Certificates = []listeners.TLSPair{pair}
		l, counters := h.openCounted(withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &c.policy))
		config := a.client()
		if c.client != nil {
			c.client(config)
		}
		over := tls.Client(dial(t, h.addr(l, 0)), config)
		err := over.HandshakeContext(t.Context())
		if err == nil { // with 1.3 a client learns with its first read that it was refused
			over.Write([]byte("x"))
			_, err = io.ReadFull(over, make([]byte, 1))
		}
		if c.refused {
			if err == nil {
				t.Errorf("%+v was not refused", c.policy)
			}
			eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
			if by := counters(); by.RejectedBy[listeners.RejectedTLS] != 1 || by.ClosedBy[listeners.ClosedByTLS] != 1 {
				t.Errorf("%+v: rejected %v, closed %v", c.policy, by.RejectedBy, by.ClosedBy)
			}
			over.Close()
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.policy, err)
			continue
		}
		got := h.conns()[0]
		if got.TLS == nil || got.TLS.CipherSuite != tls.CipherSuiteName(over.ConnectionState().CipherSuite) {
			t.Fatalf("%+v", got.TLS)
		}
		c.want.CipherSuite = got.TLS.CipherSuite
		if *got.TLS != c.want || got.State != listeners.ConnOpen {
			t.Errorf("%v %+v, want %+v", got.State, got.TLS, c.want)
		}
		over.Close()
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
	}
}

// The name that is asked for chooses: exact names, wildcards, the first.
func TestTLSChoice(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a := newAuthority(t)
	cert, key := a.sign(rsaKey(t), nil, "both.example.com")
	both := listeners.TLSPair{Certificate: a.write("rsa.pem", append(cert, key...))}
	l := h.open(withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{Certificates: []listeners.TLSPair{
		a.issue("first", "first.example"), a.issue("wild", "*.example.com"), a.issue("www", "WWW.example.com", "example.com"), both, a.issue("both", "both.example.com"),
	}}))
	for asked, want := range map[string]string{
		"first.example": "first.example", "www.example.com": "WWW.example.com", "example.com": "WWW.example.com", "mail.example.com": "*.example.com",
		"MAIL.example.COM": "*.example.com", "a.b.example.com": "first.example", "other.example": "first.example", "": "first.example",
		"both.example.com": "both.example.com", "127.0.0.1": "first.example",
	} {
		for _, kind := range []string{"RSA", "ECDSA"} {
			config := &tls.Config{ServerName: asked, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
			if asked == "both.example.com" {
				config.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
				if kind == "RSA" {
					config.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
				}
			}
			c := dialTLS(t, h.addr(l, 0), config)
			got := c.ConnectionState().PeerCertificates[0]
			if got.DNSNames[0] != want || asked == "both.example.com" && got.PublicKeyAlgorithm.String() != kind {
				t.Errorf("%q got %v %v, want %s", asked, got.DNSNames, got.PublicKeyAlgorithm, want)
			}
			c.Close()
		}
	}
}

// Certificates change under traffic: no request fails, the connection that was
// open stays, and new ones have the new certificate.
func TestTLSReload(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		a := newAuthority(t)
		pair := a.issue("server", "gen0.example", "example.com")
		policy := &listeners.TLSPolicy{Certificates: []listeners.TLSPair{pair}}
		l, counters := h.openCounted(withTLS(t, spec(t, &listeners.HTTP{Body: []byte("hello")}, "", "tcp://127.0.0.1:0"), policy))
		to := h.addr(l, 0)
		var server *listeners.TLSServer
		h.do(func() { server = l.TLS() })

		old := webClientTLS(t, a.client(), true)
		ctx, cancel := context.WithCancel(t.Context())
		var asked, failed atomic.Int64
		var clients sync.WaitGroup
		for range 3 {
			web := webClientTLS(t, a.client(), false)
			clients.Go(func() {
				for ctx.Err() == nil {
					if got, err := fetch(web, to); err != nil || got != "200 hello" {
						t.Errorf("%q, %v", got, err)
						failed.Add(1)
						return
					}
					asked.Add(1)
				}
			})
		}
		for generation := 1; generation <= 5 && failed.Load() == 0; generation++ {
			if got, err := fetch(old, to); err != nil || got != "200 hello" {
				t.Fatalf("the open connection: %q, %v", got, err)
			}
			before := asked.Load()
			name := fmt.Sprintf("gen%d.example", generation)
			cert, key := a.sign(ecKey(t), nil, name, "example.com")
			a.write("server.pem", cert)
			refreshed(t, server, false, "") // in the middle
			a.write("server-key.pem", key)
			refreshed(t, server, true, "")
			c := dialTLS(t, to, a.client())
			if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != name {
				t.Errorf("a new connection has %s, want %s", got, name)
			}
			c.Close()
			eventually(t, func() bool { return asked.Load() > before+10 || failed.Load() > 0 }, func() string { return "nobody asks" })
		}
		cancel()
		clients.Wait()
		if got, err := fetch(old, to); err != nil || got != "200 hello" {
			t.Errorf("the open connection: %q, %v", got, err)
		}
		by := counters()
		if by.Rejected != 0 || by.ClosedBy[listeners.ClosedByTLS] != 0 {
			t.Errorf("%d rejected, %v", by.Rejected, by.ClosedBy)
		}
		t.Logf("%d requests over %d connections", asked.Load(), by.Accepted)
	})
}

// A PROXY header comes before the handshake; limits are as ever.
func TestTLSBehindProxy(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a := newAuthority(t)
	s := withTLS(t, spec(t, listeners.Echo{}, "idle_timeout=100ms", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{a.issue("server", "example.com")},
	})
	l, counters := h.openCounted(withProxy(t, s, listeners.ProxyPolicy{Mode: listeners.ProxyRequired, Trusted: []stdnetip.Prefix{stdnetip.MustParsePrefix("127.0.0.0/8")}}))
	raw := dial(t, h.addr(l, 0))
	eventually(t, func() bool { return len(h.conns()) == 1 }, func() string { return "nobody came" })
	if st := h.conns()[0]; st.State != listeners.ConnHandshaking {
		t.Errorf("%v before the header", st.State)
	}
	io.WriteString(raw, v1)
	eventually(t, func() bool { c := h.conns(); return len(c) == 1 && c[0].Proxied.String() != "" }, func() string { return "no header" })
	if st := h.conns()[0]; st.State != listeners.ConnHandshaking || st.TLS != nil {
		t.Errorf("%v, %v before the handshake", st.State, st.TLS)
	}
	c := tls.Client(raw, a.client())
	echoesTLS(t, c, []byte("hello"))
	if st := h.conns()[0]; st.State != listeners.ConnOpen || st.TLS == nil || st.Proxied.String() != "tcp://192.0.2.7:4711" {
		t.Errorf("%v, %v, %v", st.State, st.TLS, st.Proxied)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("idle: %v", err)
	}
	if by := counters(); by.ClosedBy[listeners.ClosedByIdle] != 1 || by.Rejected != 0 {
		t.Errorf("%+v", by.ClosedBy)
	}
}

// A drain does not break a handshake that is under way.
func TestTLSDrain(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a := newAuthority(t)
	l := h.open(withTLS(t, spec(t, &listeners.HTTP{Body: []byte("hello")}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{a.issue("server", "example.com")},
	}))
	rest := dialTLS(t, h.addr(l, 0), a.client())
	raw := dial(t, h.addr(l, 0))
	eventually(t, func() bool { return len(h.conns()) == 2 }, func() string { return "nobody came" })
	h.do(func() { l.Stop(20 * time.Second) })
	c := tls.Client(raw, a.client())
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "hello") {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := io.ReadAll(rest); err != nil || len(got) > 0 {
		t.Errorf("at rest: %q, %v", got, err)
	}
	eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
}
