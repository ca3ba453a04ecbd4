package listeners_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	stdnetip "net/netip"
	"strings"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/sockmgr/sockmgr/listeners"
)

// dgram2 is the header of version 2 for a datagram of that client.
func dgram2(t *testing.T, client string) string {
	t.Helper()
	src, dst := net.UDPAddrFromAddrPort(stdnetip.MustParseAddrPort(client)), &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 53}
	if src.IP.To4() == nil {
		dst.IP = net.ParseIP("2001:db8::1")
	}
	data, err := proxyproto.HeaderProxyFromAddrs(2, src, dst).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A header is taken off each datagram; what has none, or a wrong one, is dropped
// when it is required.
func TestProxyDatagramIn(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		local := "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
		good := []string{dgram2(t, "192.0.2.7:4711"), dgram2(t, "[2001:db8::7]:4711"), v2(0), v2(300), local}
		bad := []string{v2(0)[:20], v2(0)[:15], strings.Replace(v2(0), "\x21\x11", "\x11\x11", 1), strings.Replace(v2(0), "\x21\x11", "\x22\x11", 1), "\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x04abcd"}
		for i, mode := range []listeners.ProxyMode{listeners.ProxyRequired, listeners.ProxyOptional} {
			for _, uri := range []string{"udp://127.0.0.1:0", "udp://[::]:0", fmt.Sprintf("unixgram://%s/in%d", dir, i)} {
				l, counters := h.openCounted(withProxy(t, spec(t, listeners.Echo{}, "", uri), listeners.ProxyPolicy{Mode: mode}))
				var c net.Conn
				if to := h.local(l, 0); to.Network() == "unixgram" {
					c = gram(t, fmt.Sprintf("%s/c%d", dir, i), to.String())
				} else {
					c = dial(t, to)
				}
				for _, header := range good {
					if got := ask(t, c, []byte(header+"hello")); string(got) != "hello" {
						t.Errorf("%s %v %q: %q", uri, mode, header, got)
					}
				}
				for _, data := range bad {
					c.Write([]byte(data))
				}
				if want := map[listeners.ProxyMode]string{listeners.ProxyOptional: "plain", listeners.ProxyRequired: "last"}[mode]; true {
					c.Write([]byte("plain"))
					if got := ask(t, c, []byte(v2(0)+"last")); string(got) != want {
						t.Errorf("%s %v: %q, want %q", uri, mode, got, want)
					}
				}
				want := uint64(len(bad))
				if mode == listeners.ProxyRequired {
					want++
				}
				if n := counters().RejectedBy[listeners.RejectedProxy]; n != want {
					t.Errorf("%s %v: %d rejected, want %d", uri, mode, n, want)
				}
			}
		}
	})
}

// Of who is not trusted, optional takes all as data; required drops it.
func TestProxyDatagramTrusted(t *testing.T) {
	h := newHost(t, "epoll", 0)
	for _, mode := range []listeners.ProxyMode{listeners.ProxyRequired, listeners.ProxyOptional} {
		l, counters := h.openCounted(withProxy(t, spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"), listeners.ProxyPolicy{
			Mode: mode, Trusted: []stdnetip.Prefix{stdnetip.MustParsePrefix("127.0.0.8/32")},
		}))
		for _, from := range []string{"127.0.0.9", "127.0.0.8"} {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, h.addr(l, 0).(*net.UDPAddr))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte(v2(0) + "x"))
			switch {
			case from == "127.0.0.8":
				if got := receive(t, c); string(got) != "x" {
					t.Errorf("%v: %q", mode, got)
				}
			case mode == listeners.ProxyOptional:
				if got := receive(t, c); string(got) != v2(0)+"x" {
					t.Errorf("%v: %q", mode, got)
				}
			default:
				eventually(t, func() bool { return counters().RejectedBy[listeners.RejectedProxy] == 1 }, func() string { return "not dropped" })
			}
		}
	}
}

// Each datagram that is sent on tells who it is from and what was asked; those
// behind one proxy have a session each.
func TestProxyDatagramOut(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		up, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		f := forwardTo(up.LocalAddr())
		f.SendProxy = 2
		next := func(payload string) (from net.Addr, src, dst string) {
			t.Helper()
			buf := make([]byte, 2000)
			n, from, err := up.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(bytes.NewReader(buf[:n]))
			header, err := proxyproto.Read(r)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := r.Peek(r.Buffered()); string(got) != payload {
				t.Errorf("%q, want %q", got, payload)
			}
			return from, header.SourceAddr.Network() + "://" + header.SourceAddr.String(), header.DestinationAddr.String()
		}
		for _, uri := range []string{"udp://127.0.0.1:0", "udp://[::]:0", "udp4://0.0.0.0:0"} {
			l := h.open(spec(t, f, "", uri))
			port := h.addr(l, 0).(*net.UDPAddr).Port
			c := dial(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			for i := range 3 {
				payload := strings.Repeat("x", i) // an empty one too
				c.Write([]byte(payload))
				from, src, dst := next(payload)
				if src != "udp://"+c.LocalAddr().String() || dst != c.RemoteAddr().String() {
					t.Errorf("%s: from %s to %s", uri, src, dst)
				}
				up.WriteTo([]byte("answer"), from)
				if got := receive(t, c); string(got) != "answer" {
					t.Errorf("%q", got)
				}
			}
		}
		l := h.open(withProxy(t, spec(t, f, "", "udp://127.0.0.1:0"), listeners.ProxyPolicy{Mode: listeners.ProxyRequired}))
		c := dial(t, h.addr(l, 0))
		seen := map[string]bool{}
		for range 2 {
			for _, client := range []string{"192.0.2.7:4711", "192.0.2.8:4711"} {
				c.Write([]byte(dgram2(t, client) + client))
				from, src, _ := next(client)
				if src != "udp://"+client {
					t.Errorf("%s, want %s", src, client)
				}
				seen[from.String()] = true
				up.WriteTo([]byte(client), from)
				if got := receive(t, c); string(got) != client {
					t.Errorf("%q", got)
				}
			}
		}
		if len(seen) != 2 || h.upstreams(l)[0].Active != 2 {
			t.Errorf("%d sources, %+v", len(seen), h.upstreams(l))
		}
		f.SendProxy = 1
		if err := f.Validate(); err == nil || !strings.Contains(err.Error(), "datagrams have version 2") {
			t.Error(err)
		}
	})
}
