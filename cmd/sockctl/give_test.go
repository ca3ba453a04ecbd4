//go:build linux

package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// server is a program that knows socket activation: it tells its pid on every
// connection.
const server = `
import os, socket, signal, sys
assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1", os.environ
assert os.environ["LISTEN_FDNAMES"] == "web", os.environ
s = socket.socket(fileno=3)
s.setblocking(True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
while True:
    c, _ = s.accept()
    c.sendall(b"%d\n" % os.getpid())
    c.close()
`

// A program with the sockets of a listener is restarted again and again, and
// killed: no client is refused.
func TestExecServesThroughRestarts(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED: there is no python3 here")
	}
	s := supervise(t, t.TempDir())
	conn := s.api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	address := makeListener(ctx, t, conn, "web", 0, "tcp://127.0.0.1:0")[0]

	program := filepath.Join(s.dir, "server.py")
	if err := os.WriteFile(program, []byte(server), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string) *exec.Cmd {
		cmd := exec.Command("sockctl", "--addr", "unix://"+s.dir+"/c", "exec", name, "--", python, program)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	if code := exitCode(run("nobody").Wait()); code != 4 {
		t.Errorf("exit code %d for a listener that is not there", code)
	}
	var c encounters
	var clients sync.WaitGroup
	busy, stop := context.WithCancel(ctx)
	defer stop()
	restarts := 4
	pids := map[string]bool{}
	for i := range restarts {
		daemonPid(ctx, t, conn) // it is there
		cmd := run("web")
		for greeting := ""; !isPid(greeting); { // the daemon echoed until it was there
			greeting = greet(t, &c, address)
			pids[greeting] = isPid(greeting)
		}
		if i == 0 {
			clients.Go(func() {
				for busy.Err() == nil {
					if greeting := greet(t, &c, address); !isPid(greeting) {
						c.lost.Add(1)
					}
				}
			})
		}
		if i%2 == 1 { // the daemon may go, too: the program has the sockets
			_ = syscall.Kill(daemonPid(ctx, t, conn), syscall.SIGKILL)
		}
		greet(t, &c, address)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if code := exitCode(cmd.Wait()); code != 7 {
			t.Errorf("sockctl exec ended with %d, not with the program's code", code)
		}
	}
	daemonPid(ctx, t, conn)
	last := run("web")
	greet(t, &c, address)
	stop()
	clients.Wait()
	_ = last.Process.Signal(syscall.SIGTERM)
	_ = last.Wait()
	t.Logf("%d restarts, %d connects, %d failed, %d accepted and not served", restarts, c.connects.Load(), c.failed.Load(), c.lost.Load())
	if c.failed.Load() > 0 || c.lost.Load() > int64(restarts) { // SIGTERM may come between accept and send
		t.Errorf("failed: %v", c.why)
	}
}

func isPid(s string) bool { return strings.HasSuffix(s, "\n") }

// greet connects, and returns what the server says.
func greet(t *testing.T, c *encounters, address string) string {
	t.Helper()
	c.connects.Add(1)
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		c.fail(err)
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_ = conn.(*net.TCPConn).CloseWrite()
	text, err := io.ReadAll(conn)
	if err != nil && strings.Contains(err.Error(), "timeout") {
		c.fail(err)
	}
	return string(text)
}
