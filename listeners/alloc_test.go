package listeners_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// rawClient connects to the only socket of l with a descriptor that package net
// knows nothing of: its calls do not allocate.
func rawClient(tb testing.TB, a listeners.Address, bindTo string) int {
	tb.Helper()
	kind := map[listeners.Network]int{listeners.TCP: unix.SOCK_STREAM, listeners.Unix: unix.SOCK_STREAM, listeners.Unixpacket: unix.SOCK_SEQPACKET}[a.Network.Base()]
	if a.Network.Datagram() {
		kind = unix.SOCK_DGRAM
	}
	family, to := unix.AF_UNIX, unix.Sockaddr(&unix.SockaddrUnix{Name: a.Path})
	if a.IP.IsValid() {
		ip := a.IP.Addr()
		switch {
		case ip.Is6() && ip.IsUnspecified(): // as an IPv4 client of a dual-stack socket
			family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(a.IP.Port()), Addr: [4]byte{127, 0, 0, 1}}
		case ip.Is6():
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.IP.Port()), Addr: ip.As16()}
		default:
			family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(a.IP.Port()), Addr: ip.As4()}
		}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if bindTo != "" {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: bindTo}); err != nil {
			tb.Fatal(err)
		}
	}
	if err := unix.Connect(fd, to); err != nil {
		tb.Fatal(err)
	}
	return fd
}

// exchange sends a request and reads as many bytes as the answer has.
func exchange(tb testing.TB, fd int, request, buf []byte, answer int) { //nolint:thelper // Helper would be measured too
	if n, err := unix.Write(fd, request); n != len(request) || err != nil {
		tb.Fatal(n, err)
	}
	for got := 0; got < answer; {
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			tb.Fatal(n, err)
		}
		got += n
	}
}

// A load is a request and how long its answer is.
type load struct {
	name    string
	uri     string
	handler listeners.HandlerSpec
	request []byte
	answer  int
}

// loads has one for every way of serving that shall not allocate. dir is for
// sockets.
func loads(dir string) []load {
	ping := bytes.Repeat([]byte("x"), 64)
	web := &listeners.HTTP{Body: []byte("hello\n")}
	const head = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 6\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\n"
	post := []byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000))
	return []load{
		{"echo tcp", "tcp4://127.0.0.1:0", listeners.Echo{}, ping, 64},
		{"echo tcp6", "tcp6://[::1]:0", listeners.Echo{}, ping, 64},
		{"echo unix", "unix://" + dir + "/s", listeners.Echo{}, ping, 64},
		{"echo unixpacket", "unixpacket://" + dir + "/p", listeners.Echo{}, ping, 64},
		{"echo udp", "udp4://127.0.0.1:0", listeners.Echo{}, ping, 64},
		{"echo udp6", "udp6://[::1]:0", listeners.Echo{}, ping, 64},
		{"echo udp dual", "udp://[::]:0", listeners.Echo{}, ping, 64},
		{"echo unixgram", "unixgram://" + dir + "/g", listeners.Echo{}, ping, 64},
		{"reply udp", "udp4://0.0.0.0:0", &listeners.Reply{Payload: ping}, ping, 64},
		{"http", "tcp4://127.0.0.1:0", web, []byte(get), len(head)},
		{"http pipelined", "tcp4://127.0.0.1:0", web, []byte(strings.Repeat(get, 16)), 16 * len(head)},
		{"http post", "unix://" + dir + "/h", web, post, len(head)},
	}
}

// Serving a request allocates nothing, on any poller: what is counted is the
// whole process, with client, poller and loop.
func TestAllocs(t *testing.T) {
	oneLoop(t)
	const requests = 1000
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		for _, tt := range loads(dir) {
			options := "idle_timeout=1h" // so that there are timers
			if strings.HasPrefix(tt.uri, "udp") || strings.HasPrefix(tt.uri, "unixgram") {
				options = ""
			}
			l := h.open(spec(t, tt.handler, options, tt.uri))
			bindTo := ""
			if strings.HasPrefix(tt.uri, "unixgram") {
				bindTo = dir + "/c"
			}
			fd := rawClient(t, h.status(l).Bound[0], bindTo)
			defer unix.Close(fd)
			buf := make([]byte, 64<<10)
			for range 200 {
				exchange(t, fd, tt.request, buf, tt.answer)
			}
			if n := mallocs(func() {
				for range requests {
					exchange(t, fd, tt.request, buf, tt.answer)
				}
			}); n > requests/50 { // the runtime's own
				t.Errorf("%s: %d allocations for %d requests", tt.name, n, requests)
			}
		}
	})
}

// Nor does relaying one, of connections and of datagrams.
func TestForwardAllocs(t *testing.T) {
	oneLoop(t)
	const requests = 1000
	eachPoller(t, func(t *testing.T, h *host) {
		for _, tt := range []struct {
			name, uri string
			size      int
		}{
			{"tcp", "tcp4://127.0.0.1:0", 64},
			{"tcp large", "tcp4://127.0.0.1:0", 16 << 10},
			{"udp", "udp4://127.0.0.1:0", 64},
		} {
			up := h.open(spec(t, listeners.Echo{}, "", tt.uri))
			l := h.open(spec(t, forwardTo(h.addr(up, 0)), "", tt.uri))
			fd := rawClient(t, h.status(l).Bound[0], "")
			defer unix.Close(fd)
			request, buf := bytes.Repeat([]byte("x"), tt.size), make([]byte, 64<<10)
			for range 200 {
				exchange(t, fd, request, buf, tt.size)
			}
			if n := mallocs(func() {
				for range requests {
					exchange(t, fd, request, buf, tt.size)
				}
			}); n > requests/50 { // the runtime's own
				t.Errorf("%s: %d allocations for %d requests", tt.name, n, requests)
			}
		}
	})
}

// A connection that comes and goes costs one allocation: itself.
func TestConnectionAllocs(t *testing.T) {
	oneLoop(t)
	const conns, most = 500, 1
	eachPoller(t, func(t *testing.T, h *host) {
		for name, handler := range map[string]listeners.HandlerSpec{"echo": listeners.Echo{}, "discard": listeners.Discard{}} {
			l := h.open(spec(t, handler, "idle_timeout=1h", "tcp4://127.0.0.1:0"))
			bound := h.status(l).Bound[0].IP
			to := &unix.SockaddrInet4{Port: int(bound.Port()), Addr: bound.Addr().As4()}
			visit := func() {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err == nil {
					err = unix.Connect(fd, to)
				}
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(fd)
			}
			for range 100 {
				visit()
			}
			gone := func(n uint64) {
				eventually(t, func() bool { return h.stats(l).Accepted == n && h.status(l).Active == 0 }, func() string { return "not closed" })
			}
			gone(100)
			n := mallocs(func() {
				for range conns {
					visit()
				}
				gone(100 + conns)
			})
			if each := float64(n) / conns; each > most+0.9 { // asking whether they are gone allocates too
				t.Errorf("%s: %.2f allocations for a connection", name, each)
			}
		}
	})
}

// mallocs counts what f allocates, and all else in the process meanwhile.
func mallocs(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// An idle connection costs less than 400 bytes in user space, with its timer
// and its place in the loop's table. It may cost 52 more with poll(2), which
// has a table of its own.
func TestIdleConnectionSize(t *testing.T) {
	oneLoop(t)
	const conns, most = 4000, 400
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2*conns+200 {
		t.Skipf("too few descriptors: %d, %v", limit.Cur, err)
	}
	for name, handler := range map[string]listeners.HandlerSpec{"echo": listeners.Echo{}, "http": &listeners.HTTP{Body: []byte("hello\n")}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "epoll", 0)
			l := h.open(spec(t, handler, "idle_timeout=1h", "tcp4://127.0.0.1:0"))
			a := h.status(l).Bound[0]
			fds := make([]int, conns)
			request, answer, buf := []byte(get), len(get), make([]byte, 1000)
			if name == "http" {
				answer = 1 // its length does not matter
			}
			before := heap()
			for i := range fds {
				fds[i] = rawClient(t, a, "")
				exchange(t, fds[i], request, buf, answer)
			}
			if n := h.status(l).Active; n != conns {
				t.Errorf("%d connections", n)
			}
			each := float64(heap()-before) / conns
			t.Logf("%.0f bytes for each of %d idle connections", each, conns)
			if each > most {
				t.Errorf("%.0f bytes for an idle connection, more than %d", each, most)
			}
			for _, fd := range fds {
				unix.Close(fd)
			}
			eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
		})
	}
}

// heap is what is reachable.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
