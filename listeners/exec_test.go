package listeners_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

func shell(script string) *listeners.Exec {
	return &listeners.Exec{Command: []string{"/bin/sh", "-c", script}, KillTimeout: 10 * time.Second}
}

// converse sends, finishes sending, and reads all that comes.
func converse(t *testing.T, to net.Addr, text string) string {
	t.Helper()
	c := dial(t, to)
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, text)
		sent <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
	}()
	all, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// dead waits until the process is not there any more, not even as a zombie.
func dead(t *testing.T, pid int) {
	t.Helper()
	eventually(t, func() bool { return unix.Kill(pid, 0) == unix.ESRCH }, func() string { return fmt.Sprintf("process %d is there still", pid) })
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// served is the one connection, once its program runs.
func (h *host) served() (one listeners.ConnStatus) {
	h.t.Helper()
	eventually(h.t, func() bool {
		all := h.conns()
		if len(all) == 1 {
			one = all[0]
		}
		return one.Program != 0
	}, func() string { return "no program" })
	return one
}

// A program has the connection as its input and output, sees the client finish,
// and the client sees it end.
func TestExecServes(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "",
			"tcp://127.0.0.1:0", "unix://"+filepath.Join(shortDir(t), "s")))
		text := strings.Repeat("to be or not to be\n", 50_000)
		for i := range 2 {
			if got := converse(t, h.addr(l, i), text); got != text {
				t.Errorf("%d bytes came back of %d", len(got), len(text))
			}
		}
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
		if st := h.stats(l); st.Received != uint64(len(text)) || st.Sent != uint64(len(text)) { // of TCP only
			t.Errorf("counted %d in, %d out, of %d", st.Received, st.Sent, len(text))
		}
	})
}

// Descriptors 0, 1 and 2 are all that a program has, and its connection blocks.
func TestExecDescriptors(t *testing.T) {
	h := newHost(t, "epoll", 0)
	busy := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"))
	for range 20 {
		dial(t, h.addr(busy, 0))
	}
	l := h.open(spec(t, shell("/bin/ls -m /proc/self/fd; cat /proc/self/fdinfo/0 | grep flags; readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2; pwd -P; cut -d' ' -f5,6 /proc/$$/stat; echo $$"), "", "tcp://127.0.0.1:0"))
	lines := strings.Split(converse(t, h.addr(l, 0), ""), "\n")
	if len(lines) != 9 {
		t.Fatalf("it said %q; log %s", lines, h.log.text.String())
	}
	if lines[0] != "0, 1, 2, 3" { // 3 is the directory that is read
		t.Errorf("descriptors %s", lines[0])
	}
	flags, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(lines[1], "flags:")), 8, 64)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %q: %v", lines[1], err)
	}
	if lines[2] != lines[3] || !strings.HasPrefix(lines[2], "socket:") || !strings.HasPrefix(lines[4], "pipe:") {
		t.Errorf("descriptors are %q", lines[2:5])
	}
	if pid := lines[7]; lines[6] != pid+" "+pid { // process group, session
		t.Errorf("group and session %q of %s", lines[6], pid)
	}
}

// The environment is what inetd's descendants have, what is configured, and
// nothing of the daemon's.
func TestExecEnvironment(t *testing.T) {
	t.Setenv("SECRET", "of the daemon")
	h := newHost(t, "epoll", 0)
	path := filepath.Join(shortDir(t), "s")
	l := h.open(spec(t, &listeners.Exec{
		Command: []string{"/usr/bin/env"}, Environment: map[string]string{"GREETING": "hello = world\n", "PATH": "/bin"},
	}, "", "tcp4://127.0.0.1:0", "tcp6://[::1]:0", "unix://"+path))
	for i, ip := range []string{"127.0.0.1", "::1"} {
		c := dial(t, h.addr(l, i))
		all, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		port := func(a net.Addr) string { return strconv.Itoa(a.(*net.TCPAddr).Port) }
		want := []string{
			"GREETING=hello = world\n", "PATH=/bin", "PROTO=TCP", "LOCAL_ADDR=" + ip, "LOCAL_PORT=" + port(c.RemoteAddr()),
			"REMOTE_ADDR=" + ip, "REMOTE_PORT=" + port(c.LocalAddr()),
		}
		got := string(all)
		for _, w := range want {
			if !strings.Contains(got, w+"\n") {
				t.Errorf("no %q in %q", w, got)
			}
		}
		if strings.Contains(got, "SECRET") || strings.Count(got, "\n") != len(want)+2+1 { // SOCKMGR_LISTENER, SOCKMGR_CONNECTION; one has a newline of its own
			t.Errorf("environment %q", got)
		}
	}
	if got := converse(t, h.addr(l, 2), ""); !strings.Contains(got, "LOCAL_ADDR="+path+"\n") || !strings.Contains(got, "PROTO=UNIX\n") || strings.Contains(got, "PORT") {
		t.Errorf("environment %q", got)
	}
}

func TestExecDirectory(t *testing.T) {
	h := newHost(t, "epoll", 0)
	dir := shortDir(t)
	e := &listeners.Exec{Command: []string{"/bin/pwd", "-P"}, Directory: dir}
	if got := converse(t, h.addr(h.open(spec(t, e, "", "tcp://127.0.0.1:0")), 0), ""); got != dir+"\n" {
		t.Errorf("it runs in %q", got)
	}
}

func TestExecUser(t *testing.T) {
	needRoot(t)
	h := newHost(t, "epoll", 0)
	for who, want := range map[string]string{"nobody": "65534 nobody", "65534": "65534 nobody", "4242": "4242 4242"} {
		e := shell("echo $(id -u) $USER; id -G")
		e.User = who
		if got := converse(t, h.addr(h.open(spec(t, e, "", "tcp://127.0.0.1:0")), 0), ""); !strings.HasPrefix(got, want+"\n") || strings.Contains(got[len(want):], " 0") {
			t.Errorf("as %s: %q", who, got)
		}
	}
}

// Two hundred at once, of which a few run at a time: the others wait in the
// kernel, and all are served.
func TestExecMany(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "exec.max_processes=20", "tcp://127.0.0.1:0"))
	to := h.addr(l, 0)
	var clients sync.WaitGroup
	began := time.Now()
	for i := range 200 {
		clients.Go(func() {
			c, err := net.Dial("tcp", to.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			text := fmt.Sprintf("I am %d", i)
			io.WriteString(c, text)
			c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); string(got) != text || err != nil {
				t.Errorf("%q: %v", got, err)
			}
		})
	}
	most, limited := int64(0), false
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for more := true; more; {
		select {
		case <-done:
			more = false
		default:
			st := h.status(l)
			most, limited = max(most, st.Active), limited || st.Limit == "exec.max_processes is reached"
		}
	}
	t.Logf("200 connections in %v, %d programs at most", time.Since(began), most)
	if most > 20 || !limited {
		t.Errorf("%d programs at once; limited: %v", most, limited)
	}
	eventually(t, func() bool { return h.status(l).Active == 0 && h.status(l).State == listeners.Running }, func() string { return "not over" })
}

// What is told of a connection that a program serves.
func TestExecStatus(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(l, 0))
		io.WriteString(c, "hello")
		io.ReadFull(c, make([]byte, 5))
		one := h.served()
		if one.Received != 5 || one.Sent != 5 || one.TCP == nil || one.Remote.IP.Port() != uint16(c.LocalAddr().(*net.TCPAddr).Port) {
			t.Fatalf("connection %+v", one)
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", one.Program)); string(comm) != "cat\n" {
			t.Errorf("the program is %q: %v", comm, err)
		}
		h.do(func() {
			if !h.set.CloseConn(one.FD, one.Cookie, false) {
				t.Error("not found")
			}
		})
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("%q, %v", got, err)
		}
		dead(t, one.Program)
	})
}

// Reset is at once, whatever the program does.
func TestExecReset(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		e := shell("trap '' TERM; echo ready; while :; do sleep 1; done")
		e.KillTimeout = 50 * time.Millisecond
		l := h.open(spec(t, e, "", "tcp://127.0.0.1:0"))
		c := dial(t, h.addr(l, 0))
		bufio.NewReader(c).ReadString('\n')
		one := h.served()
		h.do(func() { h.set.CloseConn(one.FD, one.Cookie, true) })
		if _, err := io.ReadAll(c); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("the client got %v", err)
		}
		dead(t, one.Program)
	})
}

// idle_timeout goes by what the kernel has seen.
func TestExecIdle(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "idle_timeout=1s", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	began := time.Now()
	for range 8 {
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		h.until(200 * time.Millisecond)
	}
	last := time.Now()
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	if time.Since(began) < 2*time.Second || time.Since(last) > 5*time.Second {
		t.Errorf("closed after %v, %v after the last byte", time.Since(began), time.Since(last))
	}
}

// A stop asks a program to end, and makes it.
func TestExecStop(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		kill   time.Duration
		said   string
	}{
		"asked":   {"trap 'echo bye; exit' TERM; echo $$; while :; do read x; done", time.Minute, "bye\n"},
		"made":    {"trap '' TERM; echo $$; while :; do read x; done", 50 * time.Millisecond, ""},
		"stopped": {"echo $$; kill -STOP $$", time.Minute, ""},
		"group":   {"sh -c \"trap '' TERM; sleep 1000\" & echo $!; wait", 50 * time.Millisecond, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "epoll", 0)
			e := shell(c.script)
			e.KillTimeout = c.kill
			l := h.open(spec(t, e, "", "tcp://127.0.0.1:0"))
			conn := dial(t, h.addr(l, 0))
			r := bufio.NewReader(conn)
			line, err := r.ReadString('\n')
			pid, bad := strconv.Atoi(strings.TrimSpace(line))
			if err != nil || bad != nil {
				t.Fatal(line, err)
			}
			h.do(func() { l.Stop(0) })
			if rest, err := io.ReadAll(r); string(rest) != c.said || err != nil {
				t.Errorf("%q, %v", rest, err)
			}
			dead(t, pid)
		})
	}
}

// What a program leaves behind in its group ends with it.
func TestExecLeftBehind(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, shell("sleep 1000 & echo $!"), "", "tcp://127.0.0.1:0"))
	pid, err := strconv.Atoi(strings.TrimSpace(converse(t, h.addr(l, 0), "")))
	if err != nil {
		t.Fatal(err)
	}
	dead(t, pid)
}

// A drain leaves programs alone until its time is over.
func TestExecDrain(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	echo := func() {
		t.Helper()
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	h.do(func() { l.Stop(time.Minute) })
	echo()
	c.(*net.TCPConn).CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
}

// A client that is gone takes the program along, after kill_timeout. select(2)
// does not tell of it.
func TestExecClientGone(t *testing.T) {
	for _, poller := range []string{"epoll", "poll"} {
		t.Run(poller, func(t *testing.T) {
			h := newHost(t, poller, 0)
			e := shell("echo $$; exec sleep 1000")
			e.KillTimeout = 50 * time.Millisecond
			l := h.open(spec(t, e, "", "tcp://127.0.0.1:0"))
			c := dial(t, h.addr(l, 0))
			line, _ := bufio.NewReader(c).ReadString('\n')
			pid, _ := strconv.Atoi(strings.TrimSpace(line))
			if !alive(pid) {
				t.Fatalf("no process %q", line)
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			dead(t, pid)
			eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
		})
	}
}

// What is wrong with a spec, told without looking at the host.
func TestExecInvalid(t *testing.T) {
	for field, e := range map[string]*listeners.Exec{
		"command":      {},
		"command[0]":   {Command: []string{"./cat"}},
		"command[1]":   {Command: []string{"/bin/cat", "a\x00b"}},
		"environment":  {Command: []string{"/bin/cat"}, Environment: map[string]string{"A=B": ""}},
		"directory":    {Command: []string{"/bin/cat"}, Directory: "x"},
		"user":         {Command: []string{"/bin/cat"}, User: "a:b"},
		"kill_timeout": {Command: []string{"/bin/cat"}, KillTimeout: -1},
	} {
		faults := listeners.Violations(e.Validate())
		if !slices.ContainsFunc(faults, func(v *listeners.Violation) bool { return v.Field == "spec.handler.exec."+field }) {
			t.Errorf("%s: %v", field, faults)
		}
	}
	if err := (&listeners.Exec{Command: []string{"/bin/cat"}, Environment: map[string]string{"LISTEN_PID": "1"}}).Validate(); err == nil {
		t.Error("LISTEN_PID may be set")
	}
	access, err := listeners.ParseAccess([]string{"10.0.0.0/8"}, nil, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	passed := spec(t, &listeners.Exec{Command: []string{"/bin/cat"}, PassListener: true}, "", "tcp://127.0.0.1:0")
	if _, err := passed.WithAccess(access); err == nil {
		t.Error("access that nobody keeps is taken")
	}
	if _, err := passed.WithProxy(listeners.ProxyPolicy{Mode: listeners.ProxyRequired}); err == nil {
		t.Error("a PROXY header that nobody reads is taken")
	}
	if _, err := listeners.ParseSpec([]string{"udp://127.0.0.1:0"}, &listeners.Exec{Command: []string{"/bin/cat"}}, nil); err == nil {
		t.Error("a program for each datagram")
	}
}

// What the host does not have.
func TestExecRunnable(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for what, e := range map[string]*listeners.Exec{
		"there is no program":  {Command: []string{filepath.Join(dir, "missing")}},
		"is not a program":     {Command: []string{dir}},
		"is not executable":    {Command: []string{plain}},
		"is not a directory":   {Command: []string{"/bin/cat"}, Directory: plain},
		"no such file":         {Command: []string{"/bin/cat"}, Directory: filepath.Join(dir, "missing")},
		"there is no user who": {Command: []string{"/bin/cat"}, User: "who"},
	} {
		if err := e.Runnable(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q, not %v", what, err)
		}
	}
	if err := (&listeners.Exec{Command: []string{"/bin/cat"}, Directory: dir}).Runnable(); err != nil {
		t.Error(err)
	}
}
