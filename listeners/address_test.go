package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

func TestParseAddress(t *testing.T) {
	for uri, want := range map[string]string{
		"tcp://127.0.0.1:80":               "",
		"tcp://0.0.0.0:0":                  "",
		"tcp://[::]:0":                     "",
		"tcp6://[::1]:65535":               "",
		"udp4://1.2.3.4:1":                 "",
		"tcp://:80":                        "tcp://[::]:80",
		"tcp4://:80":                       "tcp4://0.0.0.0:80",
		"udp6://:80":                       "udp6://[::]:80",
		"tcp://[::ffff:127.0.0.1]:80":      "tcp://127.0.0.1:80",
		"tcp4://[::ffff:127.0.0.1]:80":     "tcp4://127.0.0.1:80",
		"tcp://[0:0:0:0:0:0:0:1]:80":       "tcp://[::1]:80",
		"tcp://[fe80::1%25eth0]:80":        "",
		"tcp://[fe80::1%eth0]:80":          "tcp://[fe80::1%25eth0]:80",
		"tcp://[fe80::1%2525]:80":          "",
		"unix:///run/a b.sock":             "",
		"unix:////run//x/../app.sock":      "unix:///run/app.sock",
		"unixgram://@name":                 "",
		"unixpacket://@/with/slashes/../x": "",
	} {
		if want == "" {
			want = uri
		}
		if a, err := listeners.ParseAddress(uri); err != nil || a.String() != want {
			t.Errorf("%s: %v, %v", uri, a, err)
		}
	}
	for _, uri := range []string{
		"", "tcp", "tcp:", "tcp://", "127.0.0.1:80", "http://127.0.0.1:80", "TCP://127.0.0.1:80", " tcp://127.0.0.1:80",
		"tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:-1", "tcp://127.0.0.1:http", "tcp://127.0.0.1:+80",
		"tcp://localhost:80", "tcp://127.1:80", "tcp://127.0.0.01:80", "tcp://::1:80", "tcp://[::1]", "tcp://[::1:80", "tcp://*:80",
		"tcp://127.0.0.1:80/", "tcp://user@127.0.0.1:80", "tcp://127.0.0.1:80?x", "tcp4://[::1]:80", "tcp6://127.0.0.1:80", "udp6://[::ffff:1.2.3.4]:80",
		"tcp://[fe80::1%]:80", "tcp://127.0.0.1%eth0:80",
		"unix://", "unix://run/app.sock", "unix://./x", "unix:///", "unix:///run/", "unix:///run/..", "unix://@", "unix:///a\nb", "unix:///a\x00b", "unix:///\xff",
		"unix:///" + strings.Repeat("x", 107), "unix://@" + strings.Repeat("x", 107),
	} {
		if a, err := listeners.ParseAddress(uri); err == nil {
			t.Errorf("%q is accepted, as %v", uri, a)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, uri := range []string{"tcp://127.0.0.1:80", "udp6://[fe80::1%25eth0]:0", "tcp://[::ffff:1.2.3.4%a]:1", "tcp4://:1", "unix:///a/../b", "unixgram://@x", "unix:///x/.."} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		a, err := listeners.ParseAddress(uri)
		if err != nil {
			return
		}
		b, err := listeners.ParseAddress(a.String())
		if err != nil || a != b {
			t.Errorf("%q is %q, and that is %q, %v", uri, a, b, err)
		}
	})
}

// talk reports whether an echo answers at an address.
func talk(network, address string) error {
	c, err := net.DialTimeout(network, address, 20*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// Each network takes the IP versions that its name says.
func TestIPVersions(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		for _, tt := range []struct {
			uri    string
			v4, v6 bool
		}{
			{"tcp://[::]:0", true, true},
			{"tcp://:0", true, true},
			{"tcp6://[::]:0", false, true},
			{"tcp4://:0", true, false},
			{"tcp://0.0.0.0:0", true, false},
			{"tcp://[::1]:0", false, true},
			{"tcp://[::ffff:127.0.0.1]:0", true, false},
			{"udp://[::]:0", true, true},
			{"udp6://[::]:0", false, true},
			{"udp4://:0", true, false},
			{"udp://[::1]:0", false, true},
		} {
			l := h.open(spec(t, listeners.Echo{}, "", tt.uri))
			bound := h.status(l).Bound[0]
			for host, want := range map[string]bool{"127.0.0.1": tt.v4, "::1": tt.v6} {
				before := h.stats(l).Received
				err := talk(string(bound.Network.Base()), net.JoinHostPort(host, fmt.Sprint(bound.IP.Port())))
				// Where it does not listen the same port may be a stranger's, who answers.
				if got := h.stats(l).Received > before; got != want || want && err != nil {
					t.Errorf("%s at %s: %t, %v", tt.uri, host, got, err)
				}
			}
		}
	})
}

// IPv4 clients of a dual-stack listener are shown as what they are.
func TestMappedClient(t *testing.T) {
	oneLoop(t)
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://[::]:0"))
	c := dial(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: h.addr(l, 0).(*net.TCPAddr).Port})
	ask(t, c, []byte("x"))
	h.do(func() {
		conns, _ := h.set.Conns(listeners.ConnQuery{Listener: "test", Detail: listeners.DetailFull}, 0, 2)
		if len(conns) != 1 || conns[0].Remote.IP.String() != c.LocalAddr().String() || conns[0].Local.IP.String() != c.RemoteAddr().String() {
			t.Errorf("%+v", conns)
		}
	})
}

// A port that is taken for one IP version leaves the other free.
func TestBothVersionsApart(t *testing.T) {
	h := newHost(t, "epoll", 0)
	port := freePort(t)
	h.open(spec(t, listeners.Echo{}, "", fmt.Sprintf("tcp4://0.0.0.0:%d", port)))
	second := h.open(spec(t, listeners.Echo{}, "", fmt.Sprintf("tcp6://[::]:%d", port)))
	if err := talk("tcp", fmt.Sprintf("[::1]:%d", port)); err != nil {
		t.Error(err)
	}
	if n := h.stats(second).Accepted; n != 1 {
		t.Errorf("%d accepted", n)
	}
	for _, uri := range []string{"tcp://[::]:%d", "tcp4://127.0.0.1:%d", "tcp://[::ffff:127.0.0.1]:%d", "tcp6://[::1]:%d"} {
		if err := openErr(t, fmt.Sprintf(uri, port)); !errors.Is(err, listeners.AddressInUse) || !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestManyAddresses(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		uris := []string{
			"tcp://127.0.0.1:0", "tcp://127.0.0.1:0", "tcp://127.0.0.2:0", "tcp://[::1]:0", "udp://127.0.0.1:0", "udp://[::1]:0",
			"unix://" + dir + "/s", "unixpacket://" + dir + "/p",
		}
		l := h.open(spec(t, listeners.Echo{}, "", uris...))
		st := h.status(l)
		if len(st.Bound) != len(uris) || len(st.Sockets) != len(uris) || st.Queue.AcceptLimit != 6*4096 {
			t.Errorf("%+v", st)
		}
		for i, uri := range uris {
			a := h.addr(l, i)
			if err := talk(a.Network(), a.String()); err != nil {
				t.Errorf("%s: %v", uri, err)
			}
			if uri[:4] != "unix" && st.Bound[i].IP.Port() == 0 || st.Sockets[i].Local != st.Bound[i] {
				t.Errorf("%s is bound to %v, %v", uri, st.Bound[i], st.Sockets[i].Local)
			}
		}
	})
}

// When one address fails, none stays bound, and nothing is left behind.
func TestOneAddressFails(t *testing.T) {
	noLeaks(t)
	dir := shortDir(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	takenUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer takenUDP.Close()
	free := freePort(t)
	good := []string{fmt.Sprintf("tcp://127.0.0.1:%d", free), fmt.Sprintf("udp://127.0.0.1:%d", free), "unix://" + dir + "/s", "unix://@sockmgr-one-fails"}
	for bad, class := range map[string]error{
		"tcp://" + taken.Addr().String():         listeners.AddressInUse,
		"tcp4://" + taken.Addr().String():        listeners.AddressInUse,
		"udp://" + takenUDP.LocalAddr().String(): listeners.AddressInUse,
		"tcp://192.0.2.77:0":                     listeners.AddressNotAvailable,
		"udp6://[2001:db8::77]:0":                listeners.AddressNotAvailable,
		"tcp://[fe80::1%25nosuchif]:0":           listeners.AddressNotAvailable,
		"unix:///nonexistent/directory/s":        listeners.SpecInvalid,
	} {
		uris := slices.Concat(good, []string{bad})
		err := openErr(t, uris...)
		if !errors.Is(err, class) || !strings.HasPrefix(fmt.Sprint(err), "test: ") || !strings.Contains(fmt.Sprint(err), strings.SplitN(bad, "://", 2)[1]) {
			t.Errorf("%s: %v", bad, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left over: %v", bad, left)
		}
		for _, uri := range good {
			l, err := listeners.Open("test", spec(t, listeners.Echo{}, "", uri))
			if err != nil {
				t.Errorf("%s: then %v", bad, err)
				continue
			}
			l.Close()
		}
	}
}

// lastPort is the last that freePort has looked at.
var lastPort atomic.Int32

// freePort is a port below those that the kernel gives to whoever asks for port 0,
// free at the moment for both IP versions, and given out once.
func freePort(t *testing.T) int {
	t.Helper()
	lastPort.CompareAndSwap(0, int32(10000+os.Getpid()%10000))
	for {
		port := int(lastPort.Add(1))
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			l.Close()
			return port
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// Check finds what Open would, and leaves no moment in which somebody could
// connect.
func TestCheck(t *testing.T) {
	noLeaks(t)
	dir := shortDir(t)
	good := spec(t, listeners.Echo{}, "receive_buffer_bytes=1MiB", "tcp://127.0.0.1:0", "udp://[::]:0", "unix://"+dir+"/s", "unix://@sockmgr-check")
	if err := listeners.Check("test", good); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	abstract, err := net.Listen("unix", "@sockmgr-check")
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	for _, uri := range []string{"tcp://" + taken.Addr().String(), "unix://@sockmgr-check"} {
		if err := listeners.Check("test", spec(t, listeners.Echo{}, "", uri)); !errors.Is(err, listeners.AddressInUse) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// Of those who want a port at once, exactly one gets it; SO_REUSEADDR lets all
// of them bind it.
func TestPortRace(t *testing.T) {
	noLeaks(t)
	for range 8 {
		uri := fmt.Sprintf("tcp://127.0.0.1:%d", freePort(t))
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []*listeners.Listener
		begin := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				<-begin
				l, err := listeners.Open("test", spec(t, listeners.Echo{}, "", uri, "tcp://127.0.0.1:0"))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, l)
				} else if !errors.Is(err, listeners.AddressInUse) || !errors.Is(err, unix.EADDRINUSE) {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if len(won) != 1 {
			t.Errorf("%d have it", len(won))
		}
		for _, l := range won {
			l.Close()
		}
	}
}

// A link-local address has a zone, wherever it is said.
func TestLinkLocal(t *testing.T) {
	h := newHost(t, "epoll", 0)
	interfaces, _ := net.Interfaces()
	for _, ifi := range interfaces {
		addrs, _ := ifi.Addrs()
		for _, a := range addrs {
			ip := a.(*net.IPNet).IP
			if !ip.IsLinkLocalUnicast() || ip.To4() != nil || ifi.Flags&net.FlagUp == 0 {
				continue
			}
			host := ip.String() + "%" + ifi.Name
			for _, network := range []string{"tcp", "udp", "tcp6", "udp6"} {
				for _, uri := range []string{network + "://[" + host + "]:0", network + "://[::]:0"} {
					l := h.open(spec(t, listeners.Echo{}, "", uri))
					bound := h.status(l).Bound[0]
					c, err := net.Dial(network, net.JoinHostPort(host, fmt.Sprint(bound.IP.Port())))
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(20 * time.Second))
					if got := ask(t, c, []byte("xx")); string(got) != "xx" {
						t.Errorf("%s: got %q", uri, got)
					}
					if again, err := listeners.ParseAddress(bound.String()); err != nil || again != bound {
						t.Errorf("%v: %v, %v", bound, again, err)
					}
					for _, st := range h.conns() {
						if st.Remote.String() != "tcp://["+ip.String()+"%25"+ifi.Name+"]"+c.LocalAddr().String()[len(host)+2:] && st.Listener == l.Name && network[:3] == "tcp" {
							t.Errorf("%v, want %v", st.Remote, c.LocalAddr())
						}
					}
					c.Close()
					eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return "not closed" })
				}
			}
		}
	}
}
