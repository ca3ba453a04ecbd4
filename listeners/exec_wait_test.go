package listeners_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// acceptor is a program that has sockets handed to it, as systemd does it, and
// answers each connection with what it knows. Anything said ends it.
const acceptor = `
import os, select, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ
n = int(os.environ["LISTEN_FDS"])
socks = [socket.socket(fileno=3 + i) for i in range(n)]
while True:
    for s in select.select(socks, [], [])[0]:
        if s.type == socket.SOCK_DGRAM:
            data, who = s.recvfrom(100)
            s.sendto(b"%d " % os.getpid() + data, who)
            continue
        assert os.get_blocking(s.fileno())
        c, _ = s.accept()
        c.sendall(("%d %s %s\n" % (os.getpid(), os.environ["LISTEN_FDNAMES"], ",".join(sorted(os.listdir("/proc/self/fd"))))).encode())
        said = c.recv(100)
        c.close()
        if said: sys.exit(0)
`

func python(t *testing.T) *listeners.Exec {
	t.Helper()
	path, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output() // a name may stand for a shim
	if err != nil {
		t.Skip("there is no python3")
	}
	return &listeners.Exec{Command: []string{strings.TrimSpace(string(path)), "-c", acceptor}, PassListener: true}
}

// holder asks the program for its pid.
func holder(t *testing.T, to net.Addr, say string) (pid int, rest string) {
	t.Helper()
	answer := converse(t, to, say)
	if _, err := fmt.Sscanf(answer, "%d", &pid); err != nil {
		t.Fatalf("%q: %v", answer, err)
	}
	return pid, answer[strings.Index(answer, " ")+1:]
}

// One program has all sockets: it is started when somebody comes, and again
// when somebody comes after it has ended.
func TestExecPassListener(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, python(t), "", "tcp://127.0.0.1:0", "unix://"+filepath.Join(shortDir(t), "s"), "udp://127.0.0.1:0"))
		if st := h.status(l); st.Program != 0 {
			t.Errorf("program %d runs though nobody came", st.Program)
		}
		first, rest := holder(t, h.addr(l, 0), "")
		if !strings.HasPrefix(rest, "test:test:test 0,1,2,3,4,5,") {
			t.Errorf("it has %q", rest)
		}
		if st := h.status(l); st.Program != first || st.State != listeners.Running || st.Starved {
			t.Errorf("status %+v", st)
		}
		u := dial(t, h.addr(l, 2))
		io.WriteString(u, "datagram")
		buf := make([]byte, 100)
		if n, err := u.Read(buf); err != nil || string(buf[:n]) != fmt.Sprintf("%d datagram", first) {
			t.Errorf("%q: %v", buf[:n], err)
		}
		if same, _ := holder(t, h.addr(l, 1), "end"); same != first {
			t.Errorf("%d has one socket, %d another", first, same)
		}
		dead(t, first)
		second, _ := holder(t, h.addr(l, 1), "")
		if second == first {
			t.Error("it is the same")
		}
		h.do(func() { l.Stop(0) })
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
		if alive(second) {
			t.Error("closed, and the program has the sockets still")
		}
	})
}

// A pause ends the program, who comes waits, and after it a new one serves them.
func TestExecPassPause(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, python(t), "", "tcp://127.0.0.1:0"))
	to := h.addr(l, 0)
	first, _ := holder(t, to, "")
	h.do(func() {
		if err := l.Pause(listeners.Hold); err != nil {
			t.Error(err)
		}
	})
	dead(t, first)
	answer := make(chan string)
	go func() { answer <- converse(t, to, "") }()
	eventually(t, func() bool { return h.status(l).Queue.Accept == 1 }, func() string { return "nobody waits" })
	h.do(func() {
		if err := l.Resume(); err != nil {
			t.Error(err)
		}
	})
	if got := <-answer; strings.HasPrefix(got, fmt.Sprint(first)) || got == "" {
		t.Errorf("answered by %q", got)
	}
}

// Another handler gets the sockets once the program is gone; another program
// too, and new sockets.
func TestExecPassSettle(t *testing.T) {
	h := newHost(t, "epoll", 0)
	python := python(t)
	l := h.open(spec(t, python, "", "tcp4://127.0.0.1:0"))
	to, uri := h.addr(l, 0), h.status(l).Bound[0].String()
	first, _ := holder(t, to, "")
	h.do(func() { l.Settle(spec(t, listeners.Echo{}, "", "tcp4://127.0.0.1:0")) })
	dead(t, first)
	if got := converse(t, to, "hello"); got != "hello" {
		t.Errorf("echo says %q", got)
	}
	wide := spec(t, python, "", "tcp4://127.0.0.1:0", "tcp6://[::1]:0")
	more, err := listeners.Open("test", spec(t, python, "", "tcp6://[::1]:0"))
	if err != nil {
		t.Fatal(err)
	}
	h.do(func() {
		l.Settle(spec(t, python, "", "tcp4://127.0.0.1:0"))
	})
	second, _ := holder(t, to, "")
	h.do(func() {
		if err := l.Extend(more); err != nil {
			t.Error(err)
		}
		l.Settle(wide)
	})
	dead(t, second)
	third, rest := holder(t, h.addr(l, 1), "")
	if third == second || !strings.HasPrefix(rest, "test:test ") || uri != h.status(l).Bound[0].String() {
		t.Errorf("%d has %q", third, rest)
	}
}

// A program that does not take what waits is not started without end.
func TestExecPassLoops(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.Exec{Command: []string{"/bin/true"}, PassListener: true}, "", "tcp://127.0.0.1:0"))
	dial(t, h.addr(l, 0))
	pids := map[int]bool{}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if p := h.status(l).Program; p != 0 {
			pids[p] = true
		}
	}
	if len(pids) > 11 || len(pids) < 2 {
		t.Errorf("%d programs in a second", len(pids))
	}
	if st := h.status(l); st.State != listeners.Running {
		t.Errorf("status %+v", st)
	}
}

// Programs get SIGTERM when the daemon is gone, however that ended.
func TestExecDaemonKilled(t *testing.T) {
	const mark = "SOCKMGR_TEST_KILLED"
	for name, e := range map[string]*listeners.Exec{
		"connection": shell("echo $$; while :; do read x; done"), "sockets": python(t),
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv(mark) != "" {
				h := newHost(t, "epoll", 0)
				c := dial(t, h.addr(h.open(spec(t, e, "", "tcp://127.0.0.1:0")), 0))
				pid := 0
				if _, err := fmt.Fscan(c, &pid); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(os.Stdout, "program", pid)
				select {} // until it is killed
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestExecDaemonKilled$/^"+name+"$")
			cmd.Env = append(os.Environ(), mark+"=1")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := 0
			if _, err := fmt.Fscanf(out, "program %d\n", &pid); err != nil {
				t.Error(err)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if pid > 0 {
				dead(t, pid)
			}
		})
	}
}

// A pause that refuses ends the program, and clients are refused.
func TestExecPassRefuse(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, python(t), "", "tcp://127.0.0.1:0"))
	to := h.addr(l, 0)
	first, _ := holder(t, to, "")
	h.do(func() {
		if err := l.Pause(listeners.Refuse); err != nil {
			t.Error(err)
		}
	})
	dead(t, first)
	if c, err := net.Dial("tcp", to.String()); err == nil {
		c.Close()
		t.Error("a client is let in")
	}
	h.do(func() {
		if err := l.Resume(); err != nil {
			t.Error(err)
		}
	})
	if second, _ := holder(t, to, ""); second == first {
		t.Error("it is the same")
	}
}
