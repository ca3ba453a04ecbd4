package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programs is a directory with sockmgr and sockctl. Set once in TestMain.
var programs string

// The test binary is the demo too, so that the race detector sees all of it.
func TestMain(m *testing.M) {
	if os.Getenv("DEMO_BIN") != "" {
		main()
	}
	dir, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	programs = dir
	build := exec.Command("go", "build", "-o", dir+"/", "../sockmgr", "../sockctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		log.Panicf("%v\n%s", err, out)
	}
	m.Run()
}

// command is the demo with a TMPDIR of its own.
func command(t *testing.T, bin, port string) (cmd *exec.Cmd, tmp string) {
	t.Helper()
	tmp, err := os.MkdirTemp("/tmp", "d-") //nolint:usetesting // short: the path of a Unix socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "DEMO_BIN="+bin, "DEMO_PORT="+port, "TMPDIR="+tmp, "GORACE=atexit_sleep_ms=0")
	return cmd, tmp
}

// nothingLeft checks that no process and no file of the demo is there.
func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(tmp)) {
			t.Errorf("still runs: %s %q", path, line)
		}
	}
}

func contains(t *testing.T, out string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("does not say %q:\n%s", want, out)
		}
	}
}

// exitOf returns the exit code of a command that ran.
func exitOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatal(err)
	}
	return exit.ExitCode()
}

func TestWithoutTerminal(t *testing.T) {
	cmd, tmp := command(t, programs, "0")
	text, err := cmd.CombinedOutput()
	out := string(text)
	if code := exitOf(t, err); code != 0 {
		t.Errorf("exit %d:\n%s", code, out)
	}
	contains(t, out,
		"$ sockctl start web --listen tcp://127.0.0.1:0 --handler http --body 'Hello, World'\nweb running tcp://127.0.0.1:",
		`got 200 OK "Hello, World"`,
		`got "hello over TCP"`,
		`got "hello over UDP"`,
		"$ sockctl tune web backlog=64\n",
		"... status.acceptQueueLimit: 64 ...",
		"and is 64",
		"$ sockctl ls\nNAME",
		"$ sockctl inspect web\nlistener web\n",
		"To go on by hand",
		"export PATH=")
	nothingLeft(t, tmp)
}

func TestTakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	cmd, tmp := command(t, programs, fmt.Sprint(port))
	text, err := cmd.CombinedOutput()
	out := string(text)
	if code := exitOf(t, err); code != 1 {
		t.Errorf("exit %d, want 1:\n%s", code, out)
	}
	contains(t, out,
		fmt.Sprintf("(pid %d)", os.Getpid()),
		fmt.Sprintf("port %d is taken", port),
		fmt.Sprintf("make demo DEMO_PORT=%d", port+1))
	nothingLeft(t, tmp)
}

func TestBadPort(t *testing.T) {
	cmd, tmp := command(t, programs, "http")
	text, err := cmd.CombinedOutput()
	if code := exitOf(t, err); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, string(text), "DEMO_PORT=http is not a port")
	nothingLeft(t, tmp)
}

func TestNoPrograms(t *testing.T) {
	cmd, tmp := command(t, t.TempDir(), "0")
	text, err := cmd.CombinedOutput()
	if code := exitOf(t, err); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, string(text), "there is no sockmgr in", "make build")
	nothingLeft(t, tmp)
}

// fake is a directory with the programs, one of them replaced by a script.
func fake(t *testing.T, name, script string) string {
	t.Helper()
	dir := t.TempDir()
	for _, program := range []string{"sockmgr", "sockctl"} {
		if err := os.Symlink(filepath.Join(programs, program), filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	script = "#!/bin/sh\nreal=" + filepath.Join(programs, name) + "\n" + script
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFailingStep lets one command after the other fail.
func TestFailingStep(t *testing.T) {
	tests := []struct{ name, program, script, want string }{
		{"daemon", "sockmgr", "echo 'no such luck' >&2; exit 1", "sockmgr does not start: exit status 1\nno such luck"},
		{"start", "sockctl", `[ $1 = start ] && exit 3; exec $real "$@"`, "sockctl start web "},
		{"tune", "sockctl", `[ $1 = tune ] && exit 3; exec $real "$@"`, "sockctl tune web backlog=64: exit 3"},
		{"tune does nothing", "sockctl", `[ $1 = tune ] && exit 0; exec $real "$@"`, "want it changed to 64"},
		{"json", "sockctl", `[ $1 = inspect ] && { echo '{'; exit 0; }; exec $real "$@"`, "-o json: unexpected end"},
		{"wrong page", "sockctl", `[ "$1 $2" = "start web" ] && exec $real start web --listen tcp://127.0.0.1:0 --handler http --body Hi; exec $real "$@"`, `want 200 and "Hello, World"`},
		{"inspect", "sockctl", `[ "$*" = "inspect web" ] && exit 3; exec $real "$@"`, "sockctl inspect web: exit 3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd, tmp := command(t, fake(t, test.program, test.script), "0")
			text, err := cmd.CombinedOutput()
			if code := exitOf(t, err); code != 1 {
				t.Errorf("exit %d, want 1:\n%s", code, text)
			}
			contains(t, string(text), "demo: failed: ", test.want)
			nothingLeft(t, tmp)
		})
	}
}

// TestSignal ends the demo in the middle of a step.
func TestSignal(t *testing.T) {
	bin := fake(t, "sockctl", `[ $1 = tune ] || exec $real "$@"
kill -TERM $PPID
exec sleep 60`)
	cmd, tmp := command(t, bin, "0")
	text, err := cmd.CombinedOutput()
	if code := exitOf(t, err); code != 130 {
		t.Errorf("exit %d, want 130:\n%s", code, text)
	}
	contains(t, string(text), "demo: interrupted")
	nothingLeft(t, tmp)
}

// TestTerminal presses Ctrl-C on a terminal.
func TestTerminal(t *testing.T) {
	ours, theirs := terminal(t)
	cmd, tmp := command(t, programs, "0")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	var out strings.Builder
	pressed := false
	for buf := make([]byte, 4096); ; {
		n, err := ours.Read(buf)
		if err != nil {
			break // EIO: nobody has the terminal any more
		}
		out.Write(buf[:n])
		if !pressed && strings.Contains(out.String(), "sockctl --help") {
			pressed = true
			if _, err := ours.Write([]byte{3}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code := exitOf(t, cmd.Wait()); code != 0 {
		t.Errorf("exit %d:\n%s", code, out.String())
	}
	contains(t, out.String(), "until you press Ctrl-C", "SOCKMGR_ADDR=unix://"+tmp, "demo: ended")
	nothingLeft(t, tmp)
}

// terminal makes a pair of ends of a pseudo-terminal.
func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}
