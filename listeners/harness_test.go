package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	stdnetip "net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// A host is a loop with a Set on it, for one test.
type host struct {
	t       *testing.T
	loop    *mux.Loop
	set     *listeners.Set
	workers []worker             // other loops, if there are
	changes chan listeners.State // of every listener
	threads bool                 // connections are served by threads, where the handler can
	log     logged
	told    []string // of upstreams; the loop's
}

// logged is what the log has.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count is how often the log has the words.
func (l *logged) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), words)
}

// newHost runs a loop until the test ends, which then counts descriptors and
// goroutines.
func newHost(t *testing.T, poller string, descriptors int) *host {
	t.Helper()
	noLeaks(t)
	p, err := mux.NewPoller(poller)
	if err != nil {
		t.Fatal(err)
	}
	loop, err := mux.NewLoop(p)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, loop: loop, changes: make(chan listeners.State, 1000)}
	h.set = listeners.NewSet(listeners.SetConfig{
		Loop: loop, Log: hclog.New(&hclog.LoggerOptions{Output: &h.log, Level: hclog.Warn}), Descriptors: descriptors,
		Changed: func(l *listeners.Listener) {
			select {
			case h.changes <- l.State():
			default: // nobody reads them, and the loop must not wait
			}
		},
		Upstream: func(_ *listeners.Listener, u listeners.UpstreamStatus, why string) {
			h.told = append(h.told, fmt.Sprint(u.Address, " ", u.Healthy, " ", why))
		},
	})
	h.addWorkers(poller)
	ended := make(chan error, 1)
	go func() {
		err := errors.New("t.Fatal was called on the loop")
		defer func() { ended <- err }()
		err = loop.Run()
	}()
	t.Cleanup(func() {
		loop.Stop()
		err := <-ended
		for _, w := range h.workers {
			err = errors.Join(err, w.end())
		}
		h.set.Close()
		if err := errors.Join(err, loop.Close()); err != nil {
			t.Error(err)
		}
	})
	return h
}

func eachPoller(t *testing.T, f func(t *testing.T, h *host)) {
	t.Helper()
	for _, name := range mux.Pollers() {
		t.Run(name, func(t *testing.T) { f(t, newHost(t, name, 0)) })
	}
}

// eachWay is eachPoller, and then with a thread for each connection.
func eachWay(t *testing.T, f func(t *testing.T, h *host)) {
	t.Helper()
	eachPoller(t, f)
	t.Run("thread", func(t *testing.T) {
		h := newHost(t, mux.Pollers()[0], 0)
		h.threads = true
		f(t, h)
	})
}

func noLeaks(t *testing.T) {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // now the runtime has its own poller open
		r.Close()
		w.Close()
	}
	fds, goroutines := countFDs(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		eventually(t, func() bool { return countFDs(t) <= fds && runtime.NumGoroutine() <= goroutines }, func() string {
			stacks := make([]byte, 64<<10)
			stacks = stacks[:runtime.Stack(stacks, true)]
			return fmt.Sprintf("%d descriptors, %d before; %d goroutines, %d before:\n%s", countFDs(t), fds, runtime.NumGoroutine(), goroutines, stacks)
		})
	})
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// eventually waits for what another process, or the kernel, does in its own
// time.
func eventually(t *testing.T, ok func() bool, what func() string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal(what())
		}
	}
}

// do runs f on the loop, and has the other loops heed it. f must not call methods
// of h that do the same.
func (h *host) do(f func()) {
	h.t.Helper()
	h.here(f)
	h.settle()
}

// here runs f on the loop.
func (h *host) here(f func()) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := h.loop.Do(ctx, func() error { f(); return nil }); err != nil {
		h.t.Fatal(err)
	}
}

func spec(t *testing.T, handler listeners.HandlerSpec, options string, uris ...string) listeners.Spec {
	t.Helper()
	values := map[string]listeners.Value{}
	for kv := range strings.FieldsSeq(options) {
		k, v, _ := strings.Cut(kv, "=")
		values[k] = listeners.StringValue(v)
	}
	s, err := listeners.ParseSpec(uris, handler, values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open starts a listener that is stopped when the test ends.
func (h *host) open(s listeners.Spec) *listeners.Listener {
	h.t.Helper()
	if inThread, err := s.WithConcurrency(listeners.InThread); err == nil && h.threads {
		s = inThread
	}
	l, err := listeners.Open("test", s)
	if err != nil {
		h.t.Fatal(err)
	}
	h.do(func() {
		if err := l.Attach(h.set, &listeners.Counters{}); err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(func() {
		h.do(func() { l.Stop(0) })
		eventually(h.t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "listener did not close" })
	})
	return l
}

func (h *host) status(l *listeners.Listener) (st listeners.Status) {
	var shards []*listeners.Listener
	h.do(func() { st, shards = l.Status(true), l.Shards() })
	h.eachShard(shards, func(sh *listeners.Listener) { st.Stats.Add(sh.Counted()) })
	return st
}

// addr is where the i-th socket of l is bound.
func (h *host) addr(l *listeners.Listener, i int) net.Addr {
	h.t.Helper()
	a := h.status(l).Bound[i]
	switch n := string(a.Network.Base()); n {
	case "tcp":
		return net.TCPAddrFromAddrPort(a.IP)
	case "udp":
		return net.UDPAddrFromAddrPort(a.IP)
	default:
		return &net.UnixAddr{Net: n, Name: a.Path}
	}
}

// stats are what l has counted so far.
func (h *host) stats(l *listeners.Listener) listeners.Stats { return h.status(l).Stats }

// shortDir is a directory whose name leaves room for a socket's: t.TempDir is
// often longer than sockaddr_un.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// inChild runs the test again in a process of its own, for what cannot be
// undone or would harm other tests, and reports whether this is that process.
// prepare may change how it is started.
func inChild(t *testing.T, prepare func(*exec.Cmd)) bool {
	t.Helper()
	const mark = "SOCKMGR_TEST_CHILD"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	if prepare != nil {
		prepare(cmd)
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("in a process of its own: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("in a process of its own:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("the test did not run in a process of its own:\n%s", out)
	}
	return false
}

// needRoot skips tests of what only root may do.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may do this")
	}
}

// dialSmall is dial with a small receive buffer, which is soon full. With a much
// smaller one the window is less than a segment, and the kernel only probes.
func dialSmall(t *testing.T, to net.Addr) net.Conn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10) })
	}}
	c, err := d.DialContext(t.Context(), to.Network(), to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// dial connects, and closes when the test ends.
func dial(t *testing.T, to net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(to.Network(), to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// netip is an address with a port, of any host.
func netip(host string, port int) stdnetip.AddrPort {
	return stdnetip.AddrPortFrom(stdnetip.MustParseAddr(host), uint16(port))
}

func sockaddrOf(a *net.UDPAddr) unix.Sockaddr {
	ip := a.AddrPort().Addr().Unmap()
	if ip.Is4() {
		return &unix.SockaddrInet4{Port: a.Port, Addr: ip.As4()}
	}
	return &unix.SockaddrInet6{Port: a.Port, Addr: ip.As16()}
}
