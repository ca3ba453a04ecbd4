package listeners_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	stdnetip "net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

func withProxy(t *testing.T, s listeners.Spec, p listeners.ProxyPolicy) listeners.Spec {
	t.Helper()
	s, err := s.WithProxy(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const v1 = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"

// v2 is the header of version 2 for the same, with a TLV of n bytes.
func v2(n int) string {
	body := "\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x00\x50"
	if n > 0 {
		body += "\xea" + string([]byte{byte(n >> 8), byte(n)}) + strings.Repeat("t", n)
	}
	return "\r\n\r\n\x00\r\nQUIT\n\x21\x11" + string([]byte{byte(len(body) >> 8), byte(len(body))}) + body
}

// A header is taken off, however it comes in pieces, and says who it is from.
func TestProxyIn(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		for _, mode := range []listeners.ProxyMode{listeners.ProxyOptional, listeners.ProxyRequired} {
			l := h.open(withProxy(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), listeners.ProxyPolicy{Mode: mode}))
			for _, header := range []string{v1, v2(0), v2(300), "PROXY UNKNOWN\r\n"} {
				for _, piece := range []int{1, 7, len(header), len(header) + 3} {
					c := dial(t, h.addr(l, 0))
					c.(*net.TCPConn).SetNoDelay(true)
					for rest := header + "hello"; rest != ""; {
						n := min(piece, len(rest))
						io.WriteString(c, rest[:n])
						rest = rest[n:]
					}
					got := make([]byte, 5)
					if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
						t.Fatalf("%v %q by %d: %q, %v", mode, header, piece, got, err)
					}
					want := "tcp://192.0.2.7:4711"
					if strings.Contains(header, "UNKNOWN") {
						want = ""
					}
					if st := h.conns()[0]; st.Proxied.String() != want || st.Remote.IP.Addr().String() != "127.0.0.1" {
						t.Errorf("%v, from %v", st.Proxied, st.Remote)
					}
					c.Close()
					eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "still open" })
				}
			}
		}
	})
}

// Without one, optional takes what comes as data; required resets.
func TestProxyNone(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		for _, data := range []string{"x", "PROXI", "GET / HTTP/1.1\r\n", "\r\n\r\nno"} {
			l := h.open(withProxy(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), listeners.ProxyPolicy{Mode: listeners.ProxyOptional}))
			if got := ask(t, dial(t, h.addr(l, 0)), []byte(data)); string(got) != data {
				t.Errorf("%q became %q", data, got)
			}
		}
		// Who waits for the other to speak first gets to the handler.
		reply := &listeners.Reply{Payload: []byte("hello")}
		l := h.open(withProxy(t, spec(t, reply, "", "tcp://127.0.0.1:0"), listeners.ProxyPolicy{Mode: listeners.ProxyOptional, Timeout: 20 * time.Millisecond}))
		if got, err := io.ReadAll(dial(t, h.addr(l, 0))); string(got) != "hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		l = h.open(withProxy(t, spec(t, reply, "", "tcp://127.0.0.1:0"), listeners.ProxyPolicy{Mode: listeners.ProxyRequired, Timeout: 50 * time.Millisecond}))
		bad := []string{"", "x", "PROXY TCP4 1.2.3.4", "PROXY TCP4 1.2.3.4 x y z\r\n", strings.Repeat("PROXY ", 50), v2(0)[:20], v2(60000), "GET / HTTP/1.1\r\n\r\n"}
		for _, data := range bad {
			c := dial(t, h.addr(l, 0))
			io.WriteString(c, data)
			if got, err := io.ReadAll(c); len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%.30q: %q, %v", data, got, err)
			}
		}
		if st := h.stats(l); st.Rejected != uint64(len(bad)) {
			t.Errorf("%d rejected, of %d", st.Rejected, len(bad))
		}
	})
}

// Only those who are trusted are believed.
func TestProxyTrusted(t *testing.T) {
	h := newHost(t, "epoll", 0)
	for _, mode := range []listeners.ProxyMode{listeners.ProxyOptional, listeners.ProxyRequired} {
		l := h.open(withProxy(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), listeners.ProxyPolicy{
			Mode: mode, Trusted: []stdnetip.Prefix{stdnetip.MustParsePrefix("127.0.0.8/32")},
		}))
		for _, from := range []string{"127.0.0.8", "127.0.0.9"} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			c, err := d.Dial("tcp", h.addr(l, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, v1+"x")
			c.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(c)
			want := "x"
			switch {
			case from == "127.0.0.8":
			case mode == listeners.ProxyOptional:
				want = v1 + "x"
			default:
				want = ""
			}
			if string(got) != want || want != "" && err != nil {
				t.Errorf("%v from %s: %q, %v", mode, from, got, err)
			}
			c.Close()
		}
	}
}

// What one daemon sends the other understands, over IPv4, IPv6 and Unix
// sockets; the bytes behind the header are whole.
func TestProxyOut(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		data := bytes.Repeat([]byte("0123456789"), 20000)
		for _, version := range []uint32{1, 2} {
			for i, from := range []string{"tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://[::]:0", "unix://" + dir + "/in"} {
				back := h.open(withProxy(t, spec(t, listeners.Echo{}, "", fmt.Sprintf("unix://%s/back%d%d", dir, version, i)), listeners.ProxyPolicy{Mode: listeners.ProxyRequired}))
				f := forwardTo(h.addr(back, 0))
				f.SendProxy = version
				front := h.open(spec(t, f, "", from))
				c := dial(t, h.local(front, 0))
				sent := make(chan error, 1)
				go func() {
					_, err := c.Write(data)
					sent <- err
				}()
				got := make([]byte, len(data))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) || <-sent != nil {
					t.Fatalf("%v", err)
				}
				want := "tcp://" + c.LocalAddr().String()
				if c.LocalAddr().Network() == "unix" {
					want = ""
				}
				for _, st := range h.conns() {
					if st.Listener == back.Name && st.Local.Path != "" && st.Proxied.String() != want && st.Upstream.String() == "" && st.Network == listeners.Unix && st.Local.Path != dir+"/in" {
						t.Errorf("version %d, %s: %v, want %s", version, from, st.Proxied, want)
					}
				}
				c.Close()
				h.do(func() { front.Stop(0); back.Stop(0) })
				eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return "still open" })
			}
		}
	})
}
