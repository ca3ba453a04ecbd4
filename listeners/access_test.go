package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	stdnetip "net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

func access(t *testing.T, allow, deny string, reset bool, uids ...uint32) listeners.AccessPolicy {
	t.Helper()
	p, err := listeners.ParseAccess(strings.Fields(allow), strings.Fields(deny), reset, uids)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func withAccess(t *testing.T, s listeners.Spec, p listeners.AccessPolicy) listeners.Spec {
	t.Helper()
	s, err := s.WithAccess(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dialFrom connects from an address of this host.
func dialFrom(t *testing.T, from string, to net.Addr) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	if strings.HasPrefix(to.Network(), "udp") {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.DialContext(t.Context(), to.Network(), to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Deny wins, an empty allow lets all in, and an IPv4 client of a socket for both
// versions is one of IPv4. A change is for connections to come.
func TestAccess(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		s := spec(t, listeners.Echo{}, "", "tcp://[::]:0", "tcp4://0.0.0.0:0")
		l, counters := h.openCounted(s)
		port := func(i int) net.Addr {
			return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: h.addr(l, i).(*net.TCPAddr).Port}
		}
		open := dialFrom(t, "127.0.0.9", port(0))
		ask(t, open, []byte("x"))
		refused := uint64(0)
		for _, c := range []struct {
			allow, deny string
			in, out     string // addresses
		}{
			{"", "", "127.0.0.1 127.0.0.9", ""},
			{"", "127.0.0.8/31", "127.0.0.1 127.0.0.7 127.0.0.10", "127.0.0.8 127.0.0.9"},
			{"127.0.0.0/24", "127.0.0.9", "127.0.0.8 127.0.0.10", "127.0.0.9 127.0.1.1"},
			{"::ffff:127.0.0.0/127", "", "127.0.0.1", "127.0.0.2"},
			{"::/0", "", "", "127.0.0.1"}, // that is all of IPv6
			{"0.0.0.0/0", "", "127.0.0.1", ""},
			{"", "127.0.0.0/8 127.0.0.1 0.0.0.0/0", "", "127.0.0.1"},
		} {
			p := access(t, c.allow, c.deny, false)
			h.do(func() { l.Retarget(withAccess(t, s, p)) })
			for i := range 2 {
				for from := range strings.FieldsSeq(c.in) {
					conn := dialFrom(t, from, port(i))
					if got := ask(t, conn, []byte("in")); string(got) != "in" {
						t.Errorf("%+v: %s has %q", c, from, got)
					}
					conn.Close()
				}
				for from := range strings.FieldsSeq(c.out) {
					conn := dialFrom(t, from, port(i))
					if n, err := conn.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
						t.Errorf("%+v: %s has %d bytes, %v", c, from, n, err)
					}
					refused++
				}
			}
			ask(t, open, []byte("x")) // it was let in
		}
		st := h.status(l)
		if st.Stats.Rejected != refused || counters().RejectedBy[listeners.RejectedAccess] != refused {
			t.Errorf("%d refused of %d: %v", st.Stats.Rejected, refused, counters().RejectedBy)
		}
	})
}

func TestAccessReset(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(withAccess(t, spec(t, listeners.Echo{}, "linger=5s", "tcp4://127.0.0.1:0"), access(t, "", "127.0.0.0/8", true)))
		to := h.addr(l, 0)
		c, err := net.Dial(to.Network(), to.String())
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) { // it may be there before connect has returned
			t.Error(err)
		}
	})
}

// Datagrams of who may not come in are dropped.
func TestAccessUDP(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l, counters := h.openCounted(withAccess(t, spec(t, listeners.Echo{}, "", "udp://[::]:0"), access(t, "127.0.0.0/8 ::1", "127.0.0.2", false)))
		to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: h.addr(l, 0).(*net.UDPAddr).Port}
		for range 3 {
			io.WriteString(dialFrom(t, "127.0.0.2", to), "x")
		}
		ask(t, dialFrom(t, "127.0.0.3", to), []byte("x"))
		ask(t, dial(t, &net.UDPAddr{IP: net.IPv6loopback, Port: to.Port}), []byte("x"))
		c := counters()
		if c.RejectedBy[listeners.RejectedAccess] != 3 || c.SentDatagrams != 2 || c.ReceivedDatagrams != 5 {
			t.Errorf("%+v", c)
		}
	})
}

// A user of a Unix socket is known by SO_PEERCRED.
func TestAccessUIDs(t *testing.T) {
	me := uint32(os.Getuid())
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		for i, network := range []string{"unix", "unixpacket"} {
			s := spec(t, listeners.Echo{}, "", fmt.Sprintf("%s://%s/%d", network, dir, i))
			l, counters := h.openCounted(withAccess(t, s, access(t, "", "", false, me, me+1)))
			ask(t, dial(t, h.addr(l, 0)), []byte("x"))
			h.do(func() { l.Retarget(withAccess(t, s, access(t, "", "", false, me+1))) })
			c := dial(t, h.addr(l, 0))
			if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%s: %d, %v", network, n, err)
			}
			if n := counters().RejectedBy[listeners.RejectedAccess]; n != 1 {
				t.Errorf("%s: %d refused", network, n)
			}
		}
	})
}

// What is wrong is told with its place, and what is right in one form.
func TestParseAccess(t *testing.T) {
	p := access(t, "10.0.0.0/8 192.0.2.7 ::ffff:198.51.100.0/120 2001:db8::/32 ::1", "", true, 7, 3, 7)
	if want := "10.0.0.0/8 192.0.2.7/32 198.51.100.0/24 2001:db8::/32 ::1/128"; strings.Join(p.Allow, " ") != want || !slices.Equal(p.UIDs, []uint32{3, 7}) {
		t.Errorf("%v %v, want %s", p.Allow, p.UIDs, want)
	}
	for text, want := range map[string]string{
		"10.0.0.1/8":       `spec.access.allow[1]: "10.0.0.1/8" has bits set beyond its length; did you mean 10.0.0.0/8?`,
		"2001:db8::1/32":   `did you mean 2001:db8::/32?`,
		"10.0.0.0/33":      `is not a network, such as 10.0.0.0/8 or 2001:db8::/32, nor an address`,
		"localhost":        `is not a network`,
		"fe80::1%eth0":     `is not a network`,
		"::ffff:0.0.0.0/0": `is more than all of IPv4: write 0.0.0.0/0`,
		"":                 `"" is not a network`,
	} {
		_, err := listeners.ParseAccess([]string{"::1", text}, nil, false, nil)
		if v := listeners.Violations(err); len(v) != 1 || v[0].Field != "spec.access.allow[1]" || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	many := make([]string, 10_001)
	for i := range many {
		many[i] = "10.0.0.1"
	}
	if _, err := listeners.ParseAccess(many[1:], many[1:], false, nil); err != nil {
		t.Error(err)
	}
	_, err := listeners.ParseAccess(nil, many, false, make([]uint32, 1001))
	if v := listeners.Violations(err); len(v) != 2 || v[0].Field != "spec.access.deny" || v[1].Field != "spec.access.allow_uids" {
		t.Error(err)
	}
	for uri, want := range map[string]string{
		"unix://@a":     "spec.access.allow: is for tcp and udp",
		"unixgram://@a": "spec.access.allow_uids: is not for unixgram",
		"tcp://:0":      "spec.access.allow_uids: is for unix and unixpacket",
	} {
		if _, err := spec(t, listeners.Echo{}, "", uri).WithAccess(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// Whatever is in the lists, an address is let in if and only if a walk through
// them says so.
func TestAccessRanges(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	network := func() stdnetip.Prefix {
		bits := 8 + random.IntN(25)
		a := stdnetip.AddrFrom4([4]byte{byte(random.IntN(3)), byte(random.IntN(4)), byte(random.IntN(4)), byte(random.Uint32())})
		if random.IntN(3) == 0 {
			return stdnetip.PrefixFrom(stdnetip.AddrFrom16([16]byte{0x20, 1, byte(random.IntN(3)), byte(random.IntN(4)), 15: byte(random.Uint32())}), bits*4).Masked()
		}
		return stdnetip.PrefixFrom(a, bits).Masked()
	}
	for range 300 {
		var lists [2][]stdnetip.Prefix
		var texts [2][]string
		for i := range lists {
			for range random.IntN(30) {
				n := network()
				lists[i], texts[i] = append(lists[i], n), append(texts[i], n.String())
			}
		}
		p, err := listeners.ParseAccess(texts[0], texts[1], false, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			a := network().Addr()
			if random.IntN(2) == 0 {
				a = a.Prev()
			}
			in := func(list []stdnetip.Prefix) bool {
				return slices.ContainsFunc(list, func(n stdnetip.Prefix) bool { return n.Contains(a) })
			}
			if want := !in(lists[1]) && (len(lists[0]) == 0 || in(lists[0])); p.Admits(a) != want {
				t.Fatalf("%v is let in: %v; allow %v, deny %v", a, !want, lists[0], lists[1])
			}
		}
	}
}

// BenchmarkAccess is one client that is looked up in 10,000 networks of each
// list.
func BenchmarkAccess(b *testing.B) {
	var lists [2][]string
	for i := range 10_000 {
		lists[0] = append(lists[0], stdnetip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}).String()+"/25")
		lists[1] = append(lists[1], stdnetip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}).String()+"/25")
	}
	p, err := listeners.ParseAccess(lists[0], lists[1], false, nil)
	if err != nil {
		b.Fatal(err)
	}
	a := stdnetip.MustParseAddr("10.7.7.7")
	b.ReportAllocs()
	for b.Loop() {
		if !p.Admits(a) {
			b.Fatal("not let in")
		}
	}
}
