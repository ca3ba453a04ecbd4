package listeners_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// tlsBackend is a TLS server whose certificate is for its name, and that echoes.
func tlsBackend(t *testing.T, name string) net.Addr {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return echoing(t, func(c net.Conn) net.Conn { return tls.Server(c, config) })
}

// echoing is a server that echoes what comes through the layer.
func echoing(t *testing.T, layer func(net.Conn) net.Conn) net.Addr {
	t.Helper()
	s := backend(t, "tcp", "127.0.0.1:0")
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case c := <-s.conns:
				go func() {
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(30 * time.Second))
					top := layer(c)
					_, _ = io.Copy(top, top) // the client sees how it ended
				}()
			}
		}
	}()
	t.Cleanup(func() { close(stop) })
	return s.Addr()
}

// seen is the name in the certificate of who answers for server.
func seen(t *testing.T, to net.Addr, server string) (*tls.Conn, string) {
	t.Helper()
	c := tls.Client(dial(t, to), &tls.Config{ServerName: server, InsecureSkipVerify: true}) //nolint:gosec // the test looks itself
	if err := c.Handshake(); err != nil {
		t.Fatalf("%q: %v", server, err)
	}
	return c, c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func routeTo(to net.Addr, names ...string) listeners.Route {
	return listeners.Route{Names: names, Upstreams: forwardTo(to).Upstreams}
}

// The certificate that a client sees is that of the upstream whose route has the
// name: exactly, by a wildcard, or of the default upstreams.
func TestRoute(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		a, b, rest := tlsBackend(t, "a"), tlsBackend(t, "b"), tlsBackend(t, "rest")
		f := forwardTo(rest)
		f.Routes = []listeners.Route{routeTo(b, "*.example.com", "b.test"), routeTo(a, "A.example.com")}
		l := h.open(spec(t, f, "", "tcp://127.0.0.1:0"))
		for server, want := range map[string]string{
			"a.example.com": "a", "A.Example.COM": "a", "x.example.com": "b", "b.test": "b", "y.x.example.com": "rest",
			"example.com": "rest", "other.test": "rest", "": "rest",
		} {
			c, got := seen(t, h.addr(l, 0), server)
			if got != want {
				t.Errorf("%q was answered by %s, want %s", server, got, want)
			}
			if got := ask(t, c, []byte("hello")); string(got) != "hello" {
				t.Errorf("%q", got)
			}
			st, name := h.conns()[0], ""
			if st.TLS != nil {
				name = st.TLS.ServerName
			}
			if name != strings.ToLower(server) || st.State != listeners.ConnOpen {
				t.Errorf("%q: %q, %v", server, name, st.State)
			}
			c.NetConn().Close()
			eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
		}
		var told []string
		for _, u := range h.upstreams(l) {
			told = append(told, fmt.Sprint(u.Connects, u.Names))
		}
		if got := fmt.Sprint(told); got != "[4 [] 2 [*.example.com b.test] 2 [A.example.com]]" {
			t.Error(got)
		}
	})
}

// Without a default upstream a client is told that nobody has the name.
func TestRouteNone(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l, counters := h.openCounted(spec(t, &listeners.Forward{Routes: []listeners.Route{routeTo(tlsBackend(t, "a"), "a.test")}}, "", "tcp://127.0.0.1:0"))
	seen(t, h.addr(l, 0), "a.test")
	for i, server := range []string{"b.test", ""} {
		c := tls.Client(dial(t, h.addr(l, 0)), &tls.Config{ServerName: server, InsecureSkipVerify: true}) //nolint:gosec // nobody answers
		if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v", server, err)
		}
		if got := counters().RejectedBy[listeners.RejectedTLS]; got != uint64(i+1) {
			t.Errorf("%d rejected", got)
		}
	}
	if n := h.log.count("there is no route for b.test"); n != 1 || h.log.count("ClientHello") != 1 {
		t.Errorf("it is logged %d times, not once", n)
	}
}

// helloOf is what a client sends first.
func helloOf(t *testing.T, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tls.Client(client, config).Handshake() // the other end closes
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	server.Close()
	<-ended
	client.Close()
	return append(head, body...)
}

// inRecords cuts the hello into records of n bytes.
func inRecords(hello []byte, n int) (out []byte) {
	for body := hello[5:]; len(body) > 0; {
		n := min(n, len(body))
		out = append(append(out, hello[0], hello[1], hello[2], byte(n>>8), byte(n)), body[:n]...)
		body = body[n:]
	}
	return out
}

// However a hello comes in pieces and records, it is understood, and the
// upstream gets every byte as it came, with the PROXY header before it.
func TestRoutePieces(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		s := backend(t, "tcp", "127.0.0.1:0")
		f := &listeners.Forward{Routes: []listeners.Route{routeTo(s.Addr(), "a.test")}, SendProxy: 1}
		l := h.open(withProxy(t, spec(t, f, "", "tcp://127.0.0.1:0"), listeners.ProxyPolicy{Mode: listeners.ProxyRequired}))
		hello := helloOf(t, &tls.Config{ServerName: "a.test", NextProtos: []string{strings.Repeat("x", 200), strings.Repeat("y", 200)}})
		for _, size := range []int{1, 3, 100, 1 << 14} {
			data := append(inRecords(hello, size), "and what comes behind it"...)
			for _, piece := range []int{1, 7, len(hello), 1 << 20} {
				c := dial(t, h.addr(l, 0))
				c.(*net.TCPConn).SetNoDelay(true)
				for rest := append([]byte(v1), data...); len(rest) > 0; {
					n := min(piece, len(rest))
					c.Write(rest[:n])
					rest = rest[n:]
				}
				up := s.next(t)
				r := bufio.NewReader(up)
				line, err := r.ReadString('\n')
				if err != nil || !strings.HasPrefix(line, "PROXY TCP4 192.0.2.7 127.0.0.1 4711 ") {
					t.Errorf("%q, %v", line, err)
				}
				closeWrite(t, c)
				if got, err := io.ReadAll(r); !bytes.Equal(got, data) || err != nil {
					t.Errorf("records of %d, pieces of %d: %d bytes, sent %d; %v", size, piece, len(got), len(data), err)
				}
				up.Close()
				c.Close()
			}
		}
	})
}

// What is no ClientHello, comes too slowly or is too long is closed and counted.
func TestRouteBadHello(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		w := &watched{}
		h.do(func() { h.set.WatchConns(w) })
		f := forwardTo(tlsBackend(t, "rest"))
		f.Routes = []listeners.Route{routeTo(tlsBackend(t, "a"), "a.test")}
		f.HelloTimeout = 100 * time.Millisecond
		l, counters := h.openCounted(spec(t, f, "", "tcp://127.0.0.1:0"))
		hello := helloOf(t, &tls.Config{ServerName: "a.test"})
		long := "\x16\x03\x01\x40\x00\x01\x01\x86\xa0" + strings.Repeat("x", 100_000)
		bad := []string{
			"", "GET / HTTP/1.1\r\n\r\n", "\x16", string(hello[:len(hello)-1]), long, "\x16\x03\x01\x00\x00", "\x16\x03\x01\xff\xff",
			"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "\x15\x03\x01\x00\x02\x01\x00", "\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03",
			string(inRecords([]byte(long), 1)),
		}
		for i, data := range bad {
			c := dial(t, h.addr(l, 0))
			io.WriteString(c, data)
			if got, err := io.ReadAll(c); len(got) > 0 || err != nil && !isReset(err) {
				t.Errorf("%.30q: %q, %v", data, got, err)
			}
			if st := w.take(t, 1)[0]; st.Reason != listeners.ClosedByTLS {
				t.Errorf("%.30q: closed by %v", data, st.Reason)
			}
			if n := counters().RejectedBy[listeners.RejectedTLS]; n != uint64(i+1) {
				t.Errorf("%.30q: %d rejected, want %d", data, n, i+1)
			}
		}
		seen(t, h.addr(l, 0), "a.test")
	})
}

// Routes change, and open connections stay; one whose hello is under way goes by
// the new routes. What is known of an upstream stays known.
func TestRouteChange(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a, b := tlsBackend(t, "a"), tlsBackend(t, "b")
	f := &listeners.Forward{Routes: []listeners.Route{routeTo(a, "a.test"), routeTo(b, "b.test")}}
	l := h.open(spec(t, f, "", "tcp://127.0.0.1:0"))
	open, _ := seen(t, h.addr(l, 0), "a.test")
	late := dial(t, h.addr(l, 0))
	hello := helloOf(t, &tls.Config{ServerName: "a.test"})
	late.Write(hello[:50])
	eventually(t, func() bool { all := h.conns(); return len(all) == 2 && all[0].Received+all[1].Received > 50 }, func() string { return "not there" })

	swapped := &listeners.Forward{Routes: []listeners.Route{routeTo(b, "a.test"), routeTo(a, "c.test")}}
	next := spec(t, swapped, "", "tcp://127.0.0.1:0")
	h.do(func() { l.Settle(next) })
	if got := ask(t, open, []byte("still")); string(got) != "still" {
		t.Errorf("%q", got)
	}
	if _, got := seen(t, h.addr(l, 0), "a.test"); got != "b" {
		t.Error(got)
	}
	late.Write(hello[50:])
	eventually(t, func() bool { return h.upstreams(l)[0].Connects == 2 }, func() string { return fmt.Sprintf("%+v", h.upstreams(l)) })
	if st := h.upstreams(l); st[1].Connects != 1 || st[1].Active != 1 || st[1].Address != uri(a) {
		t.Errorf("%+v", st)
	}
}

// OpenSSL's client is forwarded too.
func TestRouteOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs OpenSSL: apt-get install openssl")
	}
	h := newHost(t, "epoll", 0)
	f := forwardTo(tlsBackend(t, "rest"))
	f.Routes = []listeners.Route{routeTo(tlsBackend(t, "a"), "a.test")}
	l := h.open(spec(t, f, "", "tcp://127.0.0.1:0"))
	for _, args := range [][]string{{"a", "-servername", "a.test", "-tls1_3"}, {"a", "-servername", "a.test", "-tls1_2"}, {"rest", "-noservername"}} {
		cmd := exec.CommandContext(t.Context(), "openssl", append([]string{"s_client", "-connect", h.addr(l, 0).String()}, args[1:]...)...)
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), "subject=CN = "+args[0]) { // it ends as it cannot verify
			t.Errorf("%v: %s", args, out)
		}
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

// What cannot be routed is refused by name.
func TestRouteValidate(t *testing.T) {
	up := listeners.Upstream{Address: "tcp://127.0.0.1:1"}
	for want, f := range map[string]*listeners.Forward{
		"routes[0].server_names: needs":     {Routes: []listeners.Route{{Upstreams: []listeners.Upstream{up}}}},
		"routes[0].server_names[0]: \"1.2.": {Routes: []listeners.Route{{Names: []string{"1.2.3.4"}, Upstreams: []listeners.Upstream{up}}}},
		"routes[0].server_names[0]: \"*\"":  {Routes: []listeners.Route{{Names: []string{"*"}, Upstreams: []listeners.Upstream{up}}}},
		"routes[0].server_names[0]: \"a.*":  {Routes: []listeners.Route{{Names: []string{"a.*.b"}, Upstreams: []listeners.Upstream{up}}}},
		"routes[1].server_names[0]: A.test": {Routes: []listeners.Route{{Names: []string{"a.test"}, Upstreams: []listeners.Upstream{up}}, {Names: []string{"A.test"}, Upstreams: []listeners.Upstream{up}}}},
		"routes[0].upstreams: needs":        {Upstreams: []listeners.Upstream{up}, Routes: []listeners.Route{{Names: []string{"a.test"}}}},
		"takes datagrams":                   {Routes: []listeners.Route{{Names: []string{"a.test"}, Upstreams: []listeners.Upstream{{Address: "udp://127.0.0.1:1"}}}}},
		"hello_timeout: is for routes":      {Upstreams: []listeners.Upstream{up}, HelloTimeout: time.Second},
		"upstreams: needs an address":       {},
	} {
		if err := f.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
