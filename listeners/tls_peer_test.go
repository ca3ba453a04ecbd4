package listeners_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// runPeer runs a program of the host, and skips the test where there is none.
func runPeer(t *testing.T, stdin string, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s: %v", name, err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// curl asks over TLS as it does everywhere.
func TestTLSCurl(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a := newAuthority(t)
	body := bytes.Repeat([]byte("0123456789"), 100000)
	l := h.open(withTLS(t, spec(t, &listeners.HTTP{Body: body}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{a.issue("server", "example.com")}, ALPN: []string{"http/1.1", "http/1.0"},
	}))
	_, port, err := net.SplitHostPort(h.addr(l, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--tlsv1.3"}, {"--tls-max", "1.2"}, {"--http1.1"}, {"--http1.0"}, {"--no-alpn"}} {
		out, err := runPeer(t, "", "curl", append(args, "-sS", "--cacert", a.file, "--resolve", "example.com:"+port+":127.0.0.1", "https://example.com:"+port+"/")...)
		if err != nil || out != string(body) {
			t.Errorf("%v: %v, %d bytes: %.300s", args, err, len(out), out)
		}
	}
	if out, err := runPeer(t, "", "curl", "-sS", "--resolve", "other.example:"+port+":127.0.0.1", "--cacert", a.file, "https://other.example:"+port+"/"); err == nil || !strings.Contains(out, "other.example") {
		t.Errorf("another name: %v, %s", err, out)
	}
}

// openssl s_client sees versions, ALPN, names and client certificates as they
// were set.
func TestTLSOpenSSL(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a := newAuthority(t)
	first, second := a.issue("first", "first.example"), a.issue("second", "*.second.example")
	client := a.issue("client", "member")
	echo := h.open(withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{first, second}, ALPN: []string{"h2", "http/1.1"},
	}))
	members := h.open(withTLS(t, spec(t, &listeners.Reply{Payload: []byte("hello, member\n")}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{first}, ClientCA: a.file, MinVersion: "1.3",
	}))
	for _, c := range []struct {
		to   *listeners.Listener
		args string
		ok   bool
		want []string
	}{
		{echo, "-tls1_2 -servername first.example -verify_hostname first.example", true, []string{"CN = first.example", "TLSv1.2", "Verify return code: 0 (ok)"}},
		{echo, "-tls1_3 -servername www.second.example -verify_hostname www.second.example", true, []string{"CN = *.second.example", "TLSv1.3"}},
		{echo, "-alpn http/1.1,h2 -servername first.example", true, []string{"ALPN protocol: h2"}},
		{echo, "-alpn http/1.1 -noservername", true, []string{"ALPN protocol: http/1.1", "CN = first.example"}},
		{echo, "-alpn spdy/1", false, []string{"no application protocol"}},
		{echo, "-tls1_1 -cipher DEFAULT@SECLEVEL=0", false, []string{"protocol version"}},
		{echo, "-reconnect -tls1_2 -servername first.example", true, []string{"Reused, TLSv1.2"}},
		{members, "-tls1_2 -cert " + client.Certificate + " -key " + client.Key, false, []string{"protocol version"}},
		{members, "-cert " + client.Certificate + " -key " + client.Key + " -quiet", true, []string{"hello, member"}},
		{members, "-quiet", false, []string{"certificate required"}},
	} {
		args := append([]string{"s_client", "-connect", h.addr(c.to, 0).String(), "-CAfile", a.file, "-verify_return_error"}, strings.Fields(c.args)...)
		out, err := runPeer(t, "Q\n", "openssl", args...)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
		for _, want := range c.want {
			if !strings.Contains(strings.ReplaceAll(out, "CN=", "CN = "), want) {
				t.Errorf("%s: there is no %q in\n%s", c.args, want, out)
			}
		}
	}
	eventually(t, func() bool { return h.status(echo).Active == 0 && h.status(members).Active == 0 }, func() string { return "still open" })
}

// A file comes through an echo, with openssl at the other end, byte for byte.
func TestTLSOpenSSLBulk(t *testing.T) {
	h := newHost(t, "epoll", 0)
	a := newAuthority(t)
	l := h.open(withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
		Certificates: []listeners.TLSPair{a.issue("server", "example.com")},
	}))
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl: ", err)
	}
	data := strings.Repeat("not a command of s_client\n", 80000)
	cmd := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", h.addr(l, 0).String(), "-CAfile", a.file, "-quiet", "-no_ign_eof", "-nocommands")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(in, data)
	got := make([]byte, len(data))
	if _, err := io.ReadFull(out, got); err != nil || string(got) != data {
		t.Errorf("%v", err)
	}
	in.Close()
	io.Copy(io.Discard, out)
	cmd.Wait()
}
