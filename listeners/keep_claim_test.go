package listeners

import (
	"maps"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What comes back after a kill in the midst of a change of addresses: an address
// whose port the kernel chose keeps the one that the listener has had longest,
// and of two sockets at one address the younger is the listener's.
func TestClaimKeepsThePort(t *testing.T) {
	for _, uri := range []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0", "tcp://[::1]:0"} {
		a, err := ParseAddress(uri)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := ParseSpec([]string{uri}, &Echo{}, map[string]Value{reusePort: BoolValue(true)})
		if err != nil {
			t.Fatal(err)
		}
		made := func(at Address) *socket {
			s, err := bind(at, spec)
			if err != nil {
				t.Fatal(err)
			}
			cookieOf(s.fd) // the kernel counts when it is first asked
			return s
		}
		first, second := made(a), made(a)
		one, _ := NewKept(nil, []Returned{returnedOf(t, second), returnedOf(t, first)})
		if got := one.claim("web", []Address{a})[0]; got == nil || got.cookie != cookieOf(first.fd) {
			t.Errorf("%s: %v comes back, want the older at %v", uri, got, first.addr)
		} else {
			sysClose(got.fd)
		}
		one.Close()
		beside := made(first.addr) // to take the place of the first
		var back []Returned
		for _, s := range []*socket{second, beside, first} {
			back = append(back, Returned{Name: keptName("web", s), FD: s.fd})
		}
		k, problems := NewKept(nil, back)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		cookies := func(some []*returned) (all []uint64) {
			for _, r := range some {
				all = append(all, r.cookie)
			}
			return all
		}
		got := k.claim("web", []Address{a})
		if want := []uint64{cookieOf(beside.fd)}; !slices.Equal(cookies(got), want) {
			t.Errorf("%s: %v comes back, want %v", uri, cookies(got), want)
		}
		k.giveBack(got[0])
		twin := k.take("web", func(r *returned) bool { return r.fd == first.fd })
		got = k.claim("web", []Address{a, a})
		if want := []uint64{cookieOf(second.fd), cookieOf(beside.fd)}; !slices.Equal(cookies(got), want) {
			t.Errorf("%s: %v come back, want %v", uri, cookies(got), want)
		}
		for _, r := range append(got, twin) {
			k.let(r)
		}
		k.Close()
	}
}

// returnedOf is a copy of a socket, as it comes back.
func returnedOf(t *testing.T, s *socket) Returned {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return Returned{Name: keptName("web", s), FD: fd}
}

// Of what comes back it is known who has clients that wait, and datagrams.
func TestAwaited(t *testing.T) {
	if (*Kept)(nil).Awaited() != nil || new(Kept).Awaited() != nil {
		t.Error("who keeps nothing has clients")
	}
	var back []Returned
	files := map[string]*socket{}
	for name, uri := range map[string]string{"tcp": "tcp://127.0.0.1:0", "udp": "udp://127.0.0.1:0", "unix": "unix://@", "none": "tcp://127.0.0.1:0"} {
		if name == "unix" {
			uri += t.Name()
		}
		a, err := ParseAddress(uri)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := ParseSpec([]string{uri}, &Echo{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := bind(a, spec)
		if err != nil {
			t.Fatal(err)
		}
		if name != "udp" {
			if err := unix.Listen(s.fd, 8); err != nil {
				t.Fatal(err)
			}
		}
		cookieOf(s.fd) // the kernel counts when it is first asked
		files[name] = s
		back = append(back, Returned{Name: keptName(name, s), FD: s.fd})
	}
	k, problems := NewKept(nil, back)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	defer k.Close()
	if got := k.Awaited(); len(got) > 0 {
		t.Errorf("%v are awaited by nobody", got)
	}
	for _, name := range []string{"tcp", "udp", "unix"} {
		network, address := string(files[name].addr.Network), files[name].addr.Path
		if name != "unix" {
			address = files[name].addr.IP.String()
		}
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := k.Awaited(), map[string]bool{"tcp": true, "udp": true, "unix": true}; !maps.Equal(got, want) {
		t.Errorf("%v are awaited, want %v", got, want)
	}
	if r := k.take("tcp", func(*returned) bool { return true }); r == nil || k.Awaited()["tcp"] {
		t.Error("what was claimed is awaited still")
	} else {
		sysClose(r.fd)
	}
}
