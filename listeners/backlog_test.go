package listeners_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// ssLimit is the limit of the accept queue as ss prints it: Send-Q.
func ssLimit(t *testing.T, inode uint64) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ss", "-Hltnxe").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if strings.Contains(line, fmt.Sprintf("ino:%d ", inode)) { // tcp
			return f[3]
		}
		if f[0] == "u_str" || f[0] == "u_seq" {
			if f[5] == fmt.Sprint(inode) {
				return f[3]
			}
		}
	}
	t.Fatalf("ss does not show inode %d:\n%s", inode, out)
	return ""
}

// The backlog of a live listener grows and shrinks; what is queued stays, what
// does not fit is told so by the kernel's own rules, and all is served in the
// end.
func TestBacklogLive(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		for _, uri := range []string{"tcp://127.0.0.1:0", "tcp://[::]:0", "unix://" + dir + "/s", "unixpacket://" + dir + "/p"} {
			l := h.open(spec(t, listeners.Echo{}, "max_connections=1 backlog=8", uri))
			inode := h.status(l).Sockets[0].Inode
			to := loopback(h.addr(l, 0))
			first := dial(t, to)
			ask(t, first, []byte("x"))
			var conns []net.Conn
			queue := func(n int) {
				for range n {
					conns = append(conns, dial(t, to))
				}
			}
			tuned := func(n string) {
				t.Helper()
				r := h.tune(l, "backlog", n)
				if r.Outcome != listeners.Applied || r.Effective.String() != n {
					t.Errorf("%s: backlog %s: %+v", uri, n, r)
				}
				if got := ssLimit(t, inode); got != "" && got != n {
					t.Errorf("%s: ss has %s, want %s", uri, got, n)
				}
				if q := h.status(l).Queue; fmt.Sprint(q.AcceptLimit) != n || q.Accept != uint32(len(conns)) {
					t.Errorf("%s: %d of %d queued, want %d of %s", uri, q.Accept, q.AcceptLimit, len(conns), n)
				}
			}
			queue(9) // one more than the limit
			full(t, to)
			tuned("20")
			queue(12)
			full(t, to)
			tuned("1")
			full(t, to)
			tuned("30")
			queue(2)
			first.Close()
			for i, c := range conns {
				want := fmt.Sprint("connection ", i)
				if got := ask(t, c, []byte(want)); string(got) != want {
					t.Errorf("%s: got %q", uri, got)
				}
				c.Close()
			}
			if st := h.stats(l); st.Accepted != uint64(len(conns))+1 || st.Rejected != 0 {
				t.Errorf("%s: counted %+v", uri, st)
			}
		}
	})
}

// full makes sure that a client would have to wait.
func full(t *testing.T, to net.Addr) {
	t.Helper()
	family, kind, sa := unix.AF_UNIX, unix.SOCK_STREAM, unix.Sockaddr(&unix.SockaddrUnix{Name: to.String()})
	if tcp, ok := to.(*net.TCPAddr); ok {
		family, sa = unix.AF_INET, sockaddrOf(&net.UDPAddr{IP: tcp.IP, Port: tcp.Port})
	}
	if to.Network() == "unixpacket" {
		kind = unix.SOCK_SEQPACKET
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, sa)
	if family == unix.AF_UNIX {
		if err != unix.EAGAIN {
			t.Errorf("%v: connect: %v", to, err)
		}
		return
	}
	// TCP drops the SYN: not connected, and no error either.
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || info.State != unix.BPF_TCP_SYN_SENT {
		t.Errorf("%v: state %v, %v", to, info, err)
	}
}

// Stop serves what waits in the kernel, on every socket, however much it is,
// over max_connections and over one turn's budget.
func TestStopServesQueued(t *testing.T) {
	const queued = 200
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0", "unix://"+dir+"/s"))
		ask(t, dial(t, h.addr(l, 0)), []byte("x"))
		var conns []net.Conn
		for range queued {
			conns = append(conns, dial(t, h.addr(l, 0)), dial(t, h.addr(l, 1)))
		}
		to := h.addr(l, 0)
		h.do(func() { l.Stop(1 << 40) })
		for i, c := range conns {
			want := fmt.Sprint("connection ", i)
			if got := ask(t, c, []byte(want)); string(got) != want {
				t.Fatalf("got %q", got)
			}
			c.Close()
		}
		if c, err := net.Dial("tcp", to.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, %v", c, err)
		}
		if st := h.status(l); st.Stats.Accepted != 2*queued+1 || st.State != listeners.Draining {
			t.Errorf("%+v", st)
		}
	})
}

// The same when addresses are changed: those that go let their queue be
// served, and the listener may be stopped while they do.
func TestSettleServesQueued(t *testing.T) {
	const queued = 200
	eachPoller(t, func(t *testing.T, h *host) {
		for _, stop := range []bool{false, true} {
			l := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0", "tcp://127.0.0.2:0"))
			st := h.status(l)
			ask(t, dial(t, h.addr(l, 0)), []byte("x"))
			var conns []net.Conn
			for range queued {
				conns = append(conns, dial(t, h.addr(l, 1)))
			}
			gone := h.addr(l, 1)
			next := spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0", "tcp://127.0.0.3:0")
			fresh := next
			fresh.Listen = next.Listen[1:]
			opened, err := listeners.Open("test", fresh)
			if err != nil {
				t.Fatal(err)
			}
			h.do(func() {
				if err := l.Extend(opened); err != nil {
					t.Error(err)
				}
				l.Settle(next)
				if stop {
					l.Stop(1 << 40)
				}
			})
			for i, c := range conns {
				want := fmt.Sprint("connection ", i)
				if got := ask(t, c, []byte(want)); string(got) != want {
					t.Fatalf("got %q", got)
				}
				c.Close()
			}
			if c, err := net.Dial("tcp", gone.String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v, %v", c, err)
			}
			now := h.status(l)
			if stop {
				if now.State != listeners.Draining || len(now.Sockets) != 0 {
					t.Errorf("%+v", now)
				}
				continue
			}
			if len(now.Sockets) != 2 || now.Sockets[0].Inode != st.Sockets[0].Inode || now.Bound[1].IP.Addr().String() != "127.0.0.3" {
				t.Errorf("%+v", now.Bound)
			}
		}
	})
}

// A listener that is stopped at once while an address that went still has
// clients waiting leaves nothing open.
func TestSettleThenStop(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.1:0"))
		ask(t, dial(t, h.addr(l, 0)), []byte("x"))
		var conns []net.Conn
		for range 200 {
			conns = append(conns, dial(t, h.addr(l, 0)))
		}
		next := spec(t, listeners.Echo{}, "max_connections=1", "tcp://127.0.0.2:0")
		opened, err := listeners.Open("test", next)
		if err != nil {
			t.Fatal(err)
		}
		h.do(func() {
			if err := l.Extend(opened); err != nil {
				t.Error(err)
			}
			l.Settle(next)
			l.Stop(0)
		})
		for _, c := range conns {
			if got, err := io.ReadAll(c); len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%q, %v", got, err)
			}
		}
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
		h.do(func() {
			if conns, _ := h.set.Conns(listeners.ConnQuery{}, 0, 1000); len(conns) > 0 {
				t.Errorf("%d connections", len(conns))
			}
		})
	})
}
