//go:build linux

package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/internal/shim"
)

// A supervisor that is killed costs nothing: the daemon goes on, the next
// supervisor takes it over, and then the daemon may be killed, too. It does not
// matter that the sockets which the daemon answers on were made by one that was
// killed.
func TestSupervisorIsKilled(t *testing.T) {
	t.Run("after nothing", func(t *testing.T) { testSupervisorIsKilled(t, func(int, string) {}) })
	t.Run("after a kill", func(t *testing.T) {
		testSupervisorIsKilled(t, func(pid int, address string) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			gap(t, time.Now(), address)
		})
	})
}

func testSupervisorIsKilled(t *testing.T, before func(pid int, address string)) {
	dir := t.TempDir()
	first := supervise(t, dir)
	conn := first.api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	address := makeListener(ctx, t, conn, "web", 0, "tcp://127.0.0.1:0")[0]
	held := makeListener(ctx, t, conn, "held", pb.ListenerSpec_DESIRED_STATE_PAUSED, "tcp://127.0.0.1:0")[0]
	waiting := ask(t, held)
	before(daemonPid(ctx, t, conn), address)
	pid := daemonPid(ctx, t, conn)
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitForEnd(t, first.cmd.Process.Pid) // its socket is gone
	gap(t, time.Now(), address)
	if now := daemonPid(ctx, t, conn); now != pid {
		t.Fatalf("the daemon is another one: %d, not %d", now, pid)
	}
	second := supervise(t, dir)
	waitForCopies(t, second.cmd.Process.Pid, 4) // of the listeners, of the control socket, and of what is beside it
	if now := daemonPid(ctx, t, conn); now != pid {
		t.Fatalf("the daemon is another one: %d, not %d", now, pid)
	}
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	t.Logf("supervisor killed, then the daemon: gap %v", gap(t, began, address))
	if _, err := pb.NewListenerServiceClient(conn).ResumeListener(ctx, &pb.ResumeListenerRequest{Name: "held"}); err != nil {
		t.Fatal(err)
	}
	answered(t, waiting)
}

// waitForCopies waits until a process has so many sockets of TCP. There is no
// event to hear of it.
func waitForCopies(t *testing.T, pid, count int) {
	t.Helper()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for range 4000 {
		files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*") // the pattern is well-formed
		sockets := 0
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && len(to) > 7 && to[:7] == "socket:" {
				sockets++
			}
		}
		if sockets > count { // its own one, too
			return
		}
		<-pace.C
	}
	t.Fatal("the supervisor has no copies of", count)
}

// Sockets that systemd hands over are for who asks for their address, or has
// their name; they outlive a stop, and the daemon.
func TestAdoptsSocketsOfSystemd(t *testing.T) {
	dir := t.TempDir()
	byAddress, byName := listening(t), listening(t)
	early := ask(t, byAddress.Addr().String()) // waits since before the daemon
	start := func() int {
		program, err := exec.LookPath("sockmgr")
		if err != nil {
			t.Fatal(err)
		}
		var files []uintptr
		for _, l := range []*net.TCPListener{byAddress, byName} {
			raw, err := l.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) { files = append(files, fd) }) // it is open
		}
		self, argv := shim.Wrap(program, []string{"sockmgr", "--control", "unix://" + dir + "/c", "--state", dir + "/state", "--log-level", "warn"})
		env := append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=other:named")
		pid, err := syscall.ForkExec(self, argv, &syscall.ProcAttr{Env: env, Files: append([]uintptr{0, 2, 2}, files...)})
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	end := func(pid int, sig syscall.Signal) {
		_ = syscall.Kill(pid, sig)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	pid := start()
	t.Cleanup(func() { end(pid, syscall.SIGTERM) })
	conn := (&supervised{dir: dir}).api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if got := makeListener(ctx, t, conn, "web", 0, "tcp://"+byAddress.Addr().String())[0]; got != byAddress.Addr().String() {
		t.Errorf("bound at %s", got)
	}
	if got := makeListener(ctx, t, conn, "named", 0, "tcp://127.0.0.1:0")[0]; got != byName.Addr().String() {
		t.Errorf("the listener of that name is bound at %s, not at %s", got, byName.Addr())
	}
	answered(t, early)
	api := pb.NewListenerServiceClient(conn)
	if _, err := api.StopListener(ctx, &pb.StopListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	between := ask(t, byAddress.Addr().String()) // it is systemd's, which listens
	if _, err := api.StartListener(ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	answered(t, between)
	end(pid, syscall.SIGKILL)
	during := ask(t, byName.Addr().String())
	pid = start()
	answered(t, during)
}

// listening is a socket that nobody accepts from here.
func listening(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}
