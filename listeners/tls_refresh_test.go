package listeners_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// openedTLS is the TLS of a listener that is on no loop.
func openedTLS(t *testing.T, p *listeners.TLSPolicy) *listeners.TLSServer {
	t.Helper()
	l, err := listeners.Open("test", withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), p))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l.TLS()
}

// refreshed fails unless Refresh says so.
func refreshed(t *testing.T, s *listeners.TLSServer, changed bool, fault string) {
	t.Helper()
	got, err := s.Refresh()
	if got != changed || (err != nil) != (fault != "") || fault != "" && !strings.Contains(err.Error(), fault) {
		t.Fatalf("changed %v, %v; want %v, %q", got, err, changed, fault)
	}
}

// What changes is taken; what cannot be used is told of once, and what was there
// before stays.
func TestTLSRefresh(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	pair := a.issue("server", "first.example")
	s := openedTLS(t, &listeners.TLSPolicy{Certificates: []listeners.TLSPair{pair}, ClientCA: a.file})
	inUse := func(want string) {
		t.Helper()
		if st := s.Status(); len(st.Certificates) != 1 || strings.Join(st.Certificates[0].Names, " ") != want+" 127.0.0.1" {
			t.Fatalf("%+v, want %s", st, want)
		}
	}
	inUse("first.example")
	refreshed(t, s, false, "")
	a.issue("server", "second.example")
	refreshed(t, s, true, "")
	inUse("second.example")

	// Who replaces one file after the other is not told of what lies between.
	cert, key := a.sign(ecKey(t), nil, "third.example")
	a.write("server.pem", cert)
	refreshed(t, s, false, "")
	if st := s.Status(); st.Fault == nil {
		t.Error("the status says nothing of it")
	}
	a.write("server-key.pem", key)
	refreshed(t, s, true, "")
	inUse("third.example")

	// Written over, not renamed; and it stays wrong.
	if err := os.WriteFile(pair.Certificate, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	refreshed(t, s, false, "")
	refreshed(t, s, false, "no certificate in PEM")
	refreshed(t, s, false, "")
	inUse("third.example")
	os.Remove(pair.Certificate)
	refreshed(t, s, false, "")
	refreshed(t, s, false, "there is no file")
	refreshed(t, s, false, "")
	a.write("server.pem", cert)
	refreshed(t, s, true, "") // as it was, and that is said: the operator was told that it was wrong
	refreshed(t, s, false, "")
	inUse("third.example")
	if st := s.Status(); st.Fault != nil {
		t.Error(st.Fault)
	}

	// The same text again is no change; another authority is one.
	a.write("server.pem", cert)
	refreshed(t, s, false, "")
	text, err := os.ReadFile(newAuthority(t).file)
	if err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", text)
	refreshed(t, s, true, "")
}

// Files are often links to what is current, as with Kubernetes and certbot.
func TestTLSRefreshLinks(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	for _, dir := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(a.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		a.issue(dir+"/server", "of"+dir+".example")
	}
	current := filepath.Join(a.dir, "current")
	if err := os.Symlink("1", current); err != nil {
		t.Fatal(err)
	}
	s := openedTLS(t, &listeners.TLSPolicy{Certificates: []listeners.TLSPair{{
		Certificate: current + "/server.pem", Key: current + "/server-key.pem",
	}}})
	refreshed(t, s, false, "")
	if err := os.Symlink("2", current+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(current+".new", current); err != nil {
		t.Fatal(err)
	}
	refreshed(t, s, true, "")
	if names := s.Status().Certificates[0].Names; names[0] != "of2.example" {
		t.Error(names)
	}
}
