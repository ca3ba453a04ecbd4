//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// sockctl runs it against the daemon in dir, and returns what it printed and its
// exit code.
func sockctl(t *testing.T, dir string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command("sockctl", append([]string{"--addr", "unix://" + dir + "/c"}, args...)...)
	text, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// Supervisor and daemon are both killed, in either order: their sockets are gone,
// and who waited in a queue is told so. The next start has the state.
func TestSupervisorAndDaemonAreKilled(t *testing.T) {
	for _, first := range []string{"supervisor", "daemon"} {
		dir := t.TempDir()
		s := supervise(t, dir)
		conn := s.api(t)
		ctx := t.Context()
		address := makeListener(ctx, t, conn, "web", 0, "tcp://127.0.0.1:0")[0]
		held := makeListener(ctx, t, conn, "held", pb.ListenerSpec_DESIRED_STATE_PAUSED, "tcp://127.0.0.1:0")[0]
		waiting := ask(t, held)
		daemon, supervisor := daemonPid(ctx, t, conn), s.cmd.Process.Pid
		kill := func(pid int) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitForEnd(t, pid)
		}
		if first == "supervisor" {
			kill(supervisor)
			gap(t, time.Now(), address) // nobody notices
			kill(daemon)
		} else {
			if err := syscall.Kill(supervisor, syscall.SIGSTOP); err != nil { // it starts no other
				t.Fatal(err)
			}
			kill(daemon)
			_ = ask(t, address) // the supervisor has the socket
			kill(supervisor)
		}
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			t.Errorf("%s first: the socket is there still", first)
		}
		_ = waiting.SetDeadline(time.Now().Add(patience))
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s first: who waited in the queue is told %v", first, err)
		}
		next := supervise(t, dir)
		list, err := pb.NewListenerServiceClient(next.api(t)).ListListeners(ctx, &pb.ListListenersRequest{})
		if err != nil || len(list.GetListeners()) != 2 {
			t.Fatalf("%s first: %v, %v", first, list, err)
		}
		_, again, _ := strings.Cut(list.GetListeners()[1].GetStatus().GetBound()[0].GetUri(), "://")
		gap(t, time.Now(), again)
	}
}

// Two supervisors are started at once in one directory, where a daemon that was
// killed has left its paths: one serves, and the other says why it does not.
func TestTwoSupervisorsAtOnce(t *testing.T) {
	dir := t.TempDir()
	for range fromEnv(t, "SUPERVISE_PAIRS", 4) {
		var both [2]*exec.Cmd
		var said [2]lockedBuffer
		ended := make(chan int, 2)
		for i := range both {
			both[i] = exec.Command("sockmgr", "supervise", "--control", "unix://"+dir+"/c", "--state", dir+"/state", "--log-level", "warn")
			both[i].Stderr, both[i].WaitDelay = &said[i], time.Second
			if err := both[i].Start(); err != nil {
				t.Fatal(err)
			}
			go func() {
				_ = both[i].Wait() // ProcessState tells
				ended <- i
			}()
		}
		loser := <-ended
		if code := both[loser].ProcessState.ExitCode(); code != 1 || !strings.Contains(said[loser].String(), "Error: ") {
			t.Errorf("one ended with %d, and says:\n%s", code, &said[loser])
		}
		winner := both[1-loser]
		conn := (&supervised{dir: dir}).api(t)
		pid := daemonPid(t.Context(), t, conn)
		if out, code := sockctl(t, dir, "ls"); code != 0 {
			t.Errorf("the other is not to be reached: %s\n%s", out, &said[1-loser])
		}
		_ = conn.Close()
		for _, p := range []int{winner.Process.Pid, pid} {
			if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
				t.Fatalf("%v\n%s", err, &said[1-loser])
			}
			waitForEnd(t, p)
		}
		<-ended
	}
}

// watched starts a supervisor whose daemons may be silent for so long.
func watched(t *testing.T, dir string, silent time.Duration) *supervised {
	t.Helper()
	t.Setenv("WATCHDOG_USEC", fmt.Sprint(silent.Microseconds()))
	return supervise(t, dir)
}

// A daemon that stands still is ended, and the next one has its sockets: nobody is
// refused, and who waits is served. One that has taken over at an upgrade is
// watched too. A supervisor that stands still for longer than a daemon may be
// silent ends none that was not.
func TestDaemonThatStandsStill(t *testing.T) {
	s := watched(t, t.TempDir(), time.Second)
	conn := s.api(t)
	ctx := t.Context()
	address := makeListener(ctx, t, conn, "web", 0, "tcp://127.0.0.1:0")[0]
	for range 2 {
		pid := daemonPid(ctx, t, conn)
		began := time.Now()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return standsStill(t, pid) }) // until then it may accept
		waiting := ask(t, address)
		waitForEnd(t, pid)
		answered(t, waiting)
		t.Logf("who came right after it stood still was answered after %v", time.Since(began))
		if _, err := upgrade(ctx, conn, &pb.UpgradeRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	pid := daemonPid(ctx, t, conn)
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	timer := time.NewTimer(2 * time.Second)
	<-timer.C
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	timer.Reset(2 * time.Second)
	<-timer.C
	if now := daemonPid(ctx, t, conn); now != pid {
		t.Errorf("pid %d was ended, %d is there, though only the supervisor stood still", pid, now)
	}
}

// standsStill reports whether every thread of a process is stopped.
func standsStill(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if _, after, _ := bytes.Cut(text, []byte(") ")); err != nil || !bytes.HasPrefix(after, []byte("T")) {
			return false
		}
	}
	return true
}

// A daemon that cannot start is tried again, less and less often, and its log does
// not grow as fast as it can. Meanwhile clients wait and sockctl says so; when the
// cause is gone all is as before.
func TestDaemonThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, dir)
	conn := s.api(t)
	ctx := t.Context()
	address := makeListener(ctx, t, conn, "web", 0, "tcp://127.0.0.1:0")[0]
	state := filepath.Join(dir, "state", "state.db")
	good, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	pid := daemonPid(ctx, t, conn)
	if err := os.WriteFile(state, bytes.Repeat([]byte("garbage"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	logged := func() string {
		text, err := os.ReadFile(s.log.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	began := time.Now()
	waitFor(t, func() bool { return strings.Count(logged(), "ended with exit code 1") >= 5 })
	waiting := ask(t, address)
	out, code := sockctl(t, dir, "ls", "--timeout", "300ms")
	if code != 9 || !strings.Contains(out, "no answer from") {
		t.Errorf("sockctl ends with %d, and says: %s", code, out)
	}
	took := time.Since(began)
	text := logged()
	if n := strings.Count(text, "ended with exit code 1"); n > 12 || len(text) > n*4096+4096 || !strings.Contains(text, "damaged") {
		t.Errorf("after %v it was started %d times, and has logged %d bytes:\n%s", took, n, len(text), text)
	}
	if err := os.WriteFile(state, good, 0o600); err != nil {
		t.Fatal(err)
	}
	answered(t, waiting)
	if now := daemonPid(ctx, t, conn); now == pid {
		t.Error("it is the same process")
	}
}

// A daemon that ends by itself as soon as it is ready is started less and less
// often too, and what it keeps stays.
func TestDaemonThatCrashesAgainAndAgain(t *testing.T) {
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("sockmgr", "supervise", "--control", "unix://"+dir+"/c", "--state", dir+"/state", "--log-level", "error")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	conn := (&supervised{dir: dir}).api(t)
	ctx := t.Context()
	address := makeListener(ctx, t, conn, "web", 0, "tcp://127.0.0.1:0")[0]
	crashed := map[int]bool{} // by pid: one that was told to may still answer before it does
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		_ = ask(t, address) // nobody is refused
		pid := daemonPid(ctx, t, conn)
		crashed[pid] = true
		if err := syscall.Kill(pid, syscall.SIGABRT); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	if len(crashed) > 12 {
		t.Errorf("in 3 s it was started %d times", len(crashed))
	}
	gap(t, time.Now(), address)
	t.Logf("%d crashes in 3 s", len(crashed))
}

// A supervisor that stands still costs nothing as long as the daemon lives: it
// serves and takes changes, and what is to be kept is, once the supervisor goes on.
func TestSupervisorThatStandsStill(t *testing.T) {
	s := supervise(t, t.TempDir())
	conn := s.api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	api := pb.NewListenerServiceClient(conn)
	before := makeListener(ctx, t, conn, "before", 0, "tcp://127.0.0.1:0")[0]
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const count = 20 // more than wait in the kernel (net.unix.max_dgram_qlen)
	var all []string
	var took []time.Duration
	for i := range count {
		began := time.Now()
		all = append(all, makeListener(ctx, t, conn, fmt.Sprintf("l%d", i), 0, "tcp://127.0.0.1:0")...)
		took = append(took, time.Since(began))
		gap(t, time.Now(), all[i])
	}
	began := time.Now()
	if _, err := api.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: "before"}); err != nil {
		t.Fatal(err)
	}
	t.Logf("a listener was made in p50 %v, at most %v, and one deleted in %v", percentile(took, 50), percentile(took, 100), time.Since(began))
	if percentile(took, 50) > time.Second {
		t.Error("each change waits for the supervisor")
	}
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitForCopies(t, s.cmd.Process.Pid, count+2)
	waitFor(t, func() bool { // of what was deleted it has none any more
		c, err := net.Dial("tcp", before)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	if err := syscall.Kill(daemonPid(ctx, t, conn), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, address := range all {
		answered(t, ask(t, address))
	}
	if _, err := api.GetListener(ctx, &pb.GetListenerRequest{Name: "before"}); status.Code(err) != codes.NotFound {
		t.Error("what was deleted meanwhile is", err)
	}
}

// Programs of exec are ended by the next daemon when one is killed, and the supervisor
// waits for them: no zombie stays, of an upgrade neither.
func TestNoZombieStays(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, dir, "--exec-allow", "/bin/cat")
	conn := s.api(t)
	ctx := t.Context()
	address := serve(ctx, t, conn, "cat", handled(&pb.Handler{Kind: &pb.Handler_Exec{Exec: &pb.ExecHandler{Command: []string{"/bin/cat"}}}}, "tcp://127.0.0.1:0"))
	for range 3 {
		var clients []net.Conn
		for range 5 {
			c := ask(t, address)
			answered(t, c) // by cat
			clients = append(clients, c)
		}
		pid := daemonPid(ctx, t, conn)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("its program is there still: %v", err)
			}
		}
		waitFor(t, func() bool { return daemonPid(ctx, t, conn) != pid })
		if _, err := upgrade(ctx, conn, &pb.UpgradeRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	now := daemonPid(ctx, t, conn)
	waitFor(t, func() bool { return fmt.Sprint(childrenOf(t, s.cmd.Process.Pid)) == fmt.Sprint([]int{now}) })
}

// childrenOf are the processes that one has, zombies too.
func childrenOf(t *testing.T, pid int) (children []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var child, parent int
		var state string
		_, after, _ := strings.Cut(string(text), ") ")
		if _, err := fmt.Sscan(string(text), &child); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(after, &state, &parent); err == nil && parent == pid {
			children = append(children, child)
		}
	}
	return children
}
