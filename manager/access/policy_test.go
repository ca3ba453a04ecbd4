package access

import (
	"strings"
	"testing"
)

func compiled(t *testing.T, p Policy) *Policy {
	t.Helper()
	if err := p.compile(); err != nil {
		t.Fatal(err)
	}
	return &p
}

func TestPermits(t *testing.T) {
	p := compiled(t, Policy{
		Names:     []string{"web-"},
		Addresses: []string{"10.0.0.0/8", "127.0.0.1", "fd00::/8", "/run/app/", "/run/one.sock", "@app"},
		Ports:     []string{"53", "8000-8999"},
		Handlers:  []string{"echo"}, Programs: []string{},
		Upstreams: []string{"10.0.0.0/8", "Db.Example.com", "*.svc.example.com", "/run/up.sock"},
	})
	for _, c := range []struct {
		kind          Kind
		yes, no, list string
	}{
		{Name, "web- web-1", "web we WEB-1 aweb-", "names"},
		{
			Address, "tcp://10.1.2.3:53 tcp://127.0.0.1:8000 udp://10.0.0.1:8999 tcp://[::ffff:10.0.0.1]:8000 tcp://[fd00::1]:8000 tcp://[fd00::1%25eth0]:8000",
			"tcp://11.0.0.1:8000 tcp://127.0.0.2:8000 tcp://[::1]:8000 tcp://:8000 tcp://0.0.0.0:8000 tcp4://:8000 tcp://[::]:8000 tcp://x:8000 x tcp://", "addresses",
		},
		{Address, "unix:///run/app/x unixgram:///run/app/a/b unix:///run/one.sock unix://@app", "unix:///run/app unix:///run/app/../x unix:///run/two.sock unix://@apple unix://", "addresses"},
		{Address, "tcp://10.0.0.1:8500", "tcp://10.0.0.1:0 tcp://10.0.0.1:7999 tcp://10.0.0.1:9000 tcp://10.0.0.1:99999", "ports"},
		{Handler, "echo", "exec http ", "handlers"},
		{Program, "", "/bin/cat", "programs"},
		{
			Upstream, "tcp://10.0.0.1:1 tcp://db.example.com:1 tcp://DB.example.com.:1 tcp://a.svc.example.com:1 unix:///run/up.sock",
			"tcp://169.254.169.254:80 tcp://example.com:1 tcp://a.b.svc.example.com:1 tcp://svc.example.com:1 unix:///run/other.sock tcp://:1", "upstreams",
		},
	} {
		for v := range strings.FieldsSeq(c.yes) {
			if against, ok := p.Permits(Want{c.kind, v}); !ok {
				t.Errorf("%s %s is refused by %s", c.kind, v, against)
			}
		}
		for v := range strings.SplitSeq(c.no, " ") {
			if against, ok := p.Permits(Want{c.kind, v}); ok || against != c.list {
				t.Errorf("%s %q: %v, %s", c.kind, v, ok, against)
			}
		}
	}
	// What is not there does not narrow.
	for _, open := range []*Policy{nil, compiled(t, Policy{})} {
		for _, w := range []Want{{Name, "x"}, {Address, "tcp://:1"}, {Handler, "exec"}, {Program, "/x"}, {Upstream, "tcp://x:1"}} {
			if _, ok := open.Permits(w); !ok {
				t.Errorf("%v is refused", w)
			}
		}
	}
	// [::] is IPv4 too, unless it says otherwise.
	six := compiled(t, Policy{Addresses: []string{"::/0"}})
	if _, ok := six.Permits(Want{Address, "tcp://[::]:1"}); ok {
		t.Error("[::] of both versions by ::/0")
	}
	if _, ok := six.Permits(Want{Address, "tcp6://[::]:1"}); !ok {
		t.Error("[::] of IPv6 alone")
	}
	if _, ok := compiled(t, Policy{Addresses: []string{"::/0", "0.0.0.0/0"}}).Permits(Want{Address, "tcp://:1"}); !ok {
		t.Error("[::] by both")
	}
}

func TestGrants(t *testing.T) {
	rules, err := NewRules(42, []Rule{
		{User: "7", Role: "viewer"},
		{Group: "8", Role: "operator"},
		{Certificate: "dns:Ops.Example.com", Role: "admin"},
		{Certificate: "uri:spiffe://x/Ops", Role: "data"},
		{User: "root", Role: "viewer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who  Identity
		want string // the roles
	}{
		{Identity{}, ""},
		{Identity{IsUser: true, UID: 42}, "admin"},
		{Identity{IsUser: true}, "admin viewer"},
		{Identity{UID: 7}, ""},
		{Identity{IsUser: true, UID: 7, GIDs: []uint32{1, 8}}, "viewer operator"},
		{Identity{IsUser: true, UID: 9, GIDs: []uint32{7}}, ""},
		{Identity{Names: []string{"dns:ops.example.COM"}}, "admin"},
		{Identity{Names: []string{"uri:spiffe://x/ops", "email:ops.example.com"}}, ""},
		{Identity{Names: []string{"email:a@b", "uri:spiffe://x/Ops"}}, "data"},
	} {
		var got []string
		for _, g := range rules.Grants(c.who) {
			got = append(got, g.Role.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: %q, want %q", c.who, got, c.want)
		}
	}
}
