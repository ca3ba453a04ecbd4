//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// openFiles is how many descriptors a process has.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Whatever a program does wrong, at whichever step: the daemon goes on, with the
// connections that it has, and says what it was.
func TestUpgradeThatFails(t *testing.T) {
	dir := t.TempDir()
	s := alone(t, dir)
	conn := s.api(t)
	ctx := t.Context()
	pid := daemonPid(ctx, t, conn)
	echo := serve(ctx, t, conn, "echo", handled(&pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, "tcp://127.0.0.1:0"))
	client, err := net.Dial("tcp", echo)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	within := func(name string, mode os.FileMode, program string) string { // an upright one, where others may put another
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		path := write(filepath.Join(name, program), "#!/bin/sh\n", 0o755)
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, "to-"+name)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, "to-"+name)
	}
	heir := func(how string) string {
		path, err := heirAt(dir, how)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	validate := func(path string, only bool) error {
		_, err := upgrade(ctx, conn, &pb.UpgradeRequest{Executable: path, ValidateOnly: only})
		return err
	}
	_ = validate(heir("hello"), true) // from now on the daemon has all that it needs for an upgrade
	before := 0
	for _, c := range []struct{ path, want string }{
		{"/bin/false", "it ended (exit status 1) before it said hello"},
		{"/bin/true", "it ended (exit status 0) before it said hello"},
		{write("text", "not a program", 0o700), "exec format error"},
		{write("mode", "#!/bin/sh\n", 0o600), "permission denied"},
		{write("open", "#!/bin/sh\n", 0o777), "it may be written by others (mode 0777)"},
		{write("group", "#!/bin/sh\n", 0o770), "it may be written by others (mode 0770)"},
		{within("shared", 0o770, "program"), "may be written by others (mode 0770)"},
		{within("anybody", 0o707, "program"), "may be written by others (mode 0707)"},
		{dir, "it is not a file"},
		{filepath.Join(dir, "nothing"), "no such file or directory"},
		{heir("at-once"), "it ended (exit status 3) before it said hello"},
		{heir("other-protocol"), "speaks protocol 99 of handing over"},
		{heir("babbles"), "what is this"},
		{heir("refuses"), "the moon is full"},
		{heir("valid"), "it ended (exit status 3) while it took over"},
		{heir("store"), "it ended (exit status 3) while it took over"},
		{heir("estate"), "it ended (exit status 3) while it took over"},
		{heir("part"), "it ended (exit status 3) while it took over"},
		{heir("whole"), "it ended (exit status 3) while it took over"},
		{heir("whole-hangs"), "it did not take over within 2"},
		{heir("at-once-hangs"), "it did not say hello within"},
	} {
		err := validate(c.path, false)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "the daemon goes on as before") {
			t.Errorf("%s: %v", c.path, err)
		}
		if err == nil {
			t.Fatal("it has no heir")
		}
		_ = client.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(c.path, err)
		}
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatal(c.path, err)
		}
		if now := daemonPid(ctx, t, conn); now != pid {
			t.Fatalf("%s: pid %d, was %d", c.path, now, pid)
		}
		if n := openFiles(t, pid); before == 0 {
			before = n
		} else if n > before+1 { // one more, perhaps: a call that ends
			t.Errorf("%s: %d descriptors, %d before", c.path, n, before)
		}
	}
	if err := validate("bin/sockmgr", false); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if err := validate("", true); err != nil || daemonPid(ctx, t, conn) != pid {
		t.Error(err)
	}
	// And a change can be saved, and an upgrade made, as if nothing had been.
	serve(ctx, t, conn, "another", handled(&pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}, "tcp://127.0.0.1:0"))
	if err := validate("", false); err != nil {
		t.Fatal(err)
	}
	if now := daemonPid(ctx, t, conn); now == pid {
		t.Error("it is the same process")
	}
	_, _ = client.Write([]byte("y"))
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// SIGUSR2 upgrades. Who started the daemon waits for it, and ends it, by the pid
// that was started, before and after.
func TestUpgradeBySignal(t *testing.T) {
	for _, supervisedToo := range []bool{false, true} {
		dir := t.TempDir()
		start := alone
		if supervisedToo {
			start = supervise
		}
		s := start(t, dir)
		conn := s.api(t)
		ctx := t.Context()
		pid := daemonPid(ctx, t, conn)
		for range 3 {
			if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil { // the supervisor passes it on
				t.Fatal(err)
			}
			waitFor(t, func() bool { return daemonPid(ctx, t, conn) != pid })
			pid = daemonPid(ctx, t, conn)
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := s.cmd.Wait(); err != nil {
			t.Error(err)
		}
		waitForEnd(t, pid)
		if text, err := os.ReadFile(s.log.Name()); err != nil || strings.Contains(string(text), "[WARN]") {
			t.Errorf("an ordinary upgrade, and an ordinary end, are warned of: %v\n%s", err, text)
		}
	}
}
