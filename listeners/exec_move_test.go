package listeners_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// newProgramMover has a keeper, as programs that move need one, and takes the
// part of who has the orphans of a process that has ended: it reaps them.
func newProgramMover(t *testing.T) (*mover, *names, func(pid int)) {
	t.Helper()
	keeper := &names{have: map[string]int{}}
	kept, _ := listeners.NewKept(keeper, nil)
	m := newKeptMover(t, kept)
	return m, keeper, func(pid int) {
		go func() { // noLeaks waits for it
			for {
				if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
					return
				}
			}
		}()
	}
}

// conns are those of a listener.
func (m *mover) conns(name string) (all []listeners.ConnStatus) {
	m.t.Helper()
	m.do(func() error {
		all, _ = m.set.Conns(listeners.ConnQuery{Listener: name}, 0, 1000)
		return nil
	})
	return all
}

// programs waits until the connections of a listener have theirs.
func (m *mover) programs(name string, n int) (pids []int) {
	m.t.Helper()
	eventually(m.t, func() bool {
		pids = nil
		for _, c := range m.conns(name) {
			if c.Program != 0 {
				pids = append(pids, c.Program)
			}
		}
		return len(pids) == n
	}, func() string { return fmt.Sprintf("%d programs, not %d", len(pids), n) })
	return pids
}

// Programs go on while what has started them moves again and again: byte for
// byte, with their counters, and nothing is left of them in the end.
func TestResumePrograms(t *testing.T) {
	m, keeper, reap := newProgramMover(t)
	dir := shortDir(t)
	cat := &listeners.Exec{Command: []string{"/bin/cat"}}
	served, err := spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0").WithConcurrency(listeners.InProcess)
	if err != nil {
		t.Fatal(err)
	}
	m.open("cat", spec(t, cat, "", "tcp://127.0.0.1:0"))
	m.open("unix", spec(t, cat, "exec.max_processes=4", "unix://"+dir+"/s"))
	m.open("process", served)
	var clients sync.WaitGroup
	for name := range m.ls {
		to := m.addr(name)
		for i := range 4 {
			c, err := net.Dial(to.Network(), to.String())
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			clients.Go(func() {
				defer c.Close()
				stream(t, c, 2<<20, i%2 == 1)
			})
		}
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	moves, reaped := 0, map[int]bool{}
	for over := false; !over; moves++ {
		var pids []int
		for name := range m.ls {
			for _, c := range m.conns(name) {
				pids = append(pids, c.Program)
			}
		}
		m.move(moves%5 == 4)
		for _, pid := range pids { // not before: it was the child of who had it
			if pid != 0 && moves%5 != 4 && !reaped[pid] {
				reaped[pid] = true
				reap(pid)
			}
		}
		timer := time.NewTimer(5 * time.Millisecond)
		select {
		case <-done:
			over = true
		case <-timer.C:
		}
	}
	t.Logf("%d moves, %d programs", moves, len(reaped))
	for name := range m.ls {
		eventually(t, func() bool { return m.status(name).Active == 0 }, func() string { return name + " has connections" })
		st := m.status(name)
		if st.Stats.Accepted != 4 || name == "cat" && (st.Stats.Received != 4*2<<20 || st.Stats.Sent != 4*2<<20) { // of Unix sockets the kernel does not tell, and the process sends FIN
			t.Errorf("%s: %+v", name, st.Stats)
		}
	}
	eventually(t, func() bool { return keeper.count() == 0 }, func() string { return fmt.Sprintf("%d programs are kept still", keeper.count()) })
	if keeper.most == 0 {
		t.Error("no program was kept")
	}
}

func (k *names) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.have)
}

// How a program ends is seen after a move too, and what makes it end works.
func TestResumeEndsPrograms(t *testing.T) {
	for name, c := range map[string]struct {
		script  string
		options string
		kill    time.Duration
		end     func(m *mover, one listeners.ConnStatus, c net.Conn)
		status  string
	}{
		"by itself": {"echo $$; echo err >&2; read x; echo last words >&2; exit 7", "", time.Minute, func(_ *mover, _ listeners.ConnStatus, c net.Conn) {
			io.WriteString(c, "x\n")
		}, "exit status 7"},
		"asked": {"trap 'exit 3' TERM; echo $$; while :; do read x; done", "", time.Minute, func(m *mover, one listeners.ConnStatus, _ net.Conn) {
			m.do(func() error { m.set.CloseConn(one.FD, one.Cookie, false); return nil })
		}, "exit status 3"},
		"made": {"trap '' TERM; echo $$; while :; do read x; done", "", 50 * time.Millisecond, func(m *mover, one listeners.ConnStatus, _ net.Conn) {
			m.do(func() error { m.set.CloseConn(one.FD, one.Cookie, true); return nil })
		}, "ended by SIGKILL"},
		"stopped": {"echo $$; read x", "", time.Minute, func(m *mover, _ listeners.ConnStatus, _ net.Conn) {
			m.do(func() error { m.ls["test"].Stop(0); return nil })
		}, "ended by SIGTERM"},
		"idle": {"echo $$; read x", "idle_timeout=1s", time.Minute, func(*mover, listeners.ConnStatus, net.Conn) {}, "ended by SIGTERM"},
		"client gone": {"echo $$; exec sleep 1000", "", 50 * time.Millisecond, func(_ *mover, _ listeners.ConnStatus, c net.Conn) {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}, "ended by SIGTERM"},
		"killed from outside": {"echo $$; read x", "", time.Minute, func(_ *mover, one listeners.ConnStatus, _ net.Conn) {
			unix.Kill(one.Program, unix.SIGKILL)
		}, "ended by SIGKILL"},
		"group": {"sh -c \"trap '' TERM; echo \\$\\$; exec sleep 1000\" & wait", "", 50 * time.Millisecond, func(m *mover, one listeners.ConnStatus, _ net.Conn) {
			m.do(func() error { m.set.CloseConn(one.FD, one.Cookie, false); return nil })
		}, "ended by SIGTERM"},
	} {
		t.Run(name, func(t *testing.T) {
			m, keeper, reap := newProgramMover(t)
			e := shell(c.script)
			e.KillTimeout = c.kill
			m.open("test", spec(t, e, c.options, "tcp://127.0.0.1:0"))
			client := dial(t, m.addr("test"))
			line, err := bufio.NewReader(client).ReadString('\n')
			said, bad := strconv.Atoi(strings.TrimSpace(line))
			if err != nil || bad != nil {
				t.Fatal(line, err)
			}
			pid := m.programs("test", 1)[0]
			for range 2 {
				m.move(false)
			}
			if got := m.programs("test", 1)[0]; got != pid {
				t.Fatalf("program %d, was %d", got, pid)
			}
			reap(pid)
			c.end(m, m.conns("test")[0], client)
			eventually(t, func() bool { return len(m.conns("test")) == 0 }, func() string { return "not closed" })
			dead(t, pid)
			if m.log.count("status=\""+c.status+"\"") != 1 {
				t.Errorf("not %q; log %s", c.status, &m.log.text)
			}
			if said != pid { // it is an orphan of another: init reaps it, or nobody
				eventually(t, func() bool { return !alive(said) || zombie(said) }, func() string { return "its child is there still" })
			}
			if name == "by itself" && (m.log.count("line=err") != 1 || m.log.count("line=\"last words\"") != 1) {
				t.Errorf("log %s", &m.log.text)
			}
			eventually(t, func() bool { return keeper.count() == 0 }, func() string { return "it is kept still" })
		})
	}
}

// zombie reports whether a process has ended and was not reaped.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

// Who reaps a program may never do that: then its connection is closed all the
// same, soon, and nobody says how it ended.
func TestResumeUnknownEnd(t *testing.T) {
	m, _, reap := newProgramMover(t)
	e := shell("echo $$; read x; exit 7")
	e.KillTimeout = 100 * time.Millisecond
	m.open("test", spec(t, e, "", "tcp://127.0.0.1:0"))
	client := dial(t, m.addr("test"))
	bufio.NewReader(client).ReadString('\n')
	pid := m.programs("test", 1)[0]
	m.move(false)
	io.WriteString(client, "x\n")
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	eventually(t, func() bool { return m.log.count("unknown: another process waited for it") == 1 }, func() string { return m.log.text.String() })
	if m.log.count("program failed") != 0 {
		t.Error("of what is not known nobody says that it failed")
	}
	reap(pid)
}

// A program that ends with the process that has started it does not move.
func TestResumeLeavesLeashed(t *testing.T) {
	m := newMover(t)
	m.open("cat", spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "", "tcp://127.0.0.1:0"))
	client := dial(t, m.addr("cat"))
	ask(t, client, []byte("x"))
	pid := m.programs("cat", 1)[0]
	m.move(false) // which stops what is left behind, at once
	if all := m.conns("cat"); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	dead(t, pid)
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	ask(t, dial(t, m.addr("cat")), []byte("x"))
}

// Connections whose programs were not started yet get them after the move.
func TestResumeStartsPrograms(t *testing.T) {
	m, _, reap := newProgramMover(t)
	m.open("cat", spec(t, &listeners.Exec{Command: []string{"/bin/cat"}}, "", "tcp://127.0.0.1:0"))
	release := m.set.HoldStarts(time.Minute)
	var clients []net.Conn
	for range 5 {
		clients = append(clients, dial(t, m.addr("cat")))
	}
	eventually(t, func() bool { return len(m.conns("cat")) == 5 }, func() string { return "not accepted" })
	m.move(true)
	m.move(false)
	release() // of the set before: it has nothing to start
	m.programs("cat", 5)
	m.move(false)
	for _, pid := range m.programs("cat", 5) {
		reap(pid)
	}
	for _, c := range clients {
		ask(t, c, []byte("hello"))
		c.Close()
	}
	eventually(t, func() bool { return m.status("cat").Active == 0 }, func() string { return "not over" })
}

// A program that has the listening sockets keeps them, and when it ends they are
// watched again.
func TestResumeHolder(t *testing.T) {
	m, keeper, reap := newProgramMover(t)
	e := shell("exec python3 -c '" + acceptOne + "'")
	e.PassListener = true
	m.open("wait", spec(t, e, "", "tcp://127.0.0.1:0"))
	to := m.addr("wait")
	greet := func() (pid int) {
		t.Helper()
		c := dial(t, to)
		defer c.Close()
		text, err := io.ReadAll(c)
		if pid, _ = strconv.Atoi(strings.TrimSpace(string(text))); pid == 0 {
			t.Fatalf("%q, %v; log %s", text, err, &m.log.text)
		}
		return pid
	}
	first := greet()
	for range 3 {
		m.move(false)
		if pid := greet(); pid != first || m.status("wait").Program != first {
			t.Errorf("pid %d, %d; was %d", pid, m.status("wait").Program, first)
		}
	}
	reap(first)
	unix.Kill(first, unix.SIGTERM)
	eventually(t, func() bool { return m.status("wait").Program == 0 }, func() string { return "it has the sockets still" })
	second := greet()
	if second == first || keeper.count() != 1 {
		t.Errorf("pid %d, was %d; %d are kept", second, first, keeper.count())
	}
	m.move(false)
	reap(second)
	m.do(func() error { return m.ls["wait"].Pause(listeners.Hold) })
	dead(t, second)
	m.move(false)
	m.do(func() error { return m.ls["wait"].Resume() })
	third := greet()
	m.move(false)
	reap(third)
	if third == second {
		t.Error("nobody ended it")
	}
}

const acceptOne = `
import os, socket, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
s = socket.socket(fileno=3)
while True:
    c, _ = s.accept()
    c.sendall(b"%d\n" % os.getpid())
    c.close()
`
