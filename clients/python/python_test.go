// Package python runs the tests of the Python client, with a daemon. They are
// skipped where no Python has grpc.
package python

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sockmgr/sockmgr/cmd/sockctl/cli"
	"github.com/sockmgr/sockmgr/cmd/sockmgr/daemon"
	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// programs is a directory with sockmgr and sockctl. Set once in TestMain.
var programs string

// The test binary is both programs too, so that the race detector sees them.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "sockmgr":
		os.Exit(daemon.Main(os.Args[1:], os.Stdout, os.Stderr)) //nolint:forbidigo // it is the main of sockmgr
	case "sockctl":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		context.AfterFunc(ctx, stop)
		os.Exit(cli.Run(ctx, cli.Env{ //nolint:forbidigo // it is the main of sockctl
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Now: time.Now, UID: os.Getuid(),
		}, os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "py") // short: the path of a Unix socket has at most 107 bytes
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	programs = dir
	self, err := os.Executable()
	for _, name := range []string{"sockmgr", "sockctl"} {
		err = errors.Join(err, os.Symlink(self, filepath.Join(dir, name)))
	}
	if err != nil {
		log.Panic(err)
	}
	m.Run()
}

// python finds one that has what the client needs.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} { // Debian's packages are for its own
		if exec.Command(name, "-c", "import grpc, google.protobuf").Run() == nil {
			return name
		}
	}
	t.Skip("SKIPPED, the Python client is not tested: no python3 here has grpc (apt-get install python3-grpcio)")
	return ""
}

// serve starts a daemon, and returns the environment of its clients.
func serve(t *testing.T) []string {
	t.Helper()
	addr := "unix://" + programs + "/c.sock"
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "SOCKMGR_ADDR="+addr, "SOCKMGR_CONTROL="+addr, "PATH="+programs+":"+os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", "PYTHONPATH="+here, "PYTHONDONTWRITEBYTECODE=1")
	cmd := exec.Command(filepath.Join(programs, "sockmgr"), "--state", "memory", "--log-level", "warn")
	cmd.Env = env
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stderr)
	line, err := r.ReadString('\n')
	if !strings.Contains(line, "ready on") {
		t.Fatal(line, err)
	}
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(r)
		said <- string(text)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT)
		text := <-said
		if err := cmd.Wait(); err != nil || strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic") {
			t.Errorf("the daemon: %v\n%s", err, text)
		}
	})
	return env
}

// TestPeersPython runs each file of tests/ as a program of its own. None leaves
// a socket behind.
func TestPeersPython(t *testing.T) {
	python, env := python(t), serve(t)
	files, err := filepath.Glob("tests/test_*.py")
	if err != nil || len(files) == 0 {
		t.Fatal("no tests", err)
	}
	conn, err := grpc.NewClient("unix://"+programs+"/c.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".py")
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, python, "-W", "error::SyntaxWarning", "-m", "unittest", "-v", "tests."+name)
			cmd.Env = env
			cmd.WaitDelay = time.Second
			if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "Exception ignored") {
				t.Errorf("%v\n%s", err, out)
			}
			left, err := pb.NewSocketServiceClient(conn).ListSockets(ctx, &pb.ListSocketsRequest{Filter: `owner = "uid:*"`})
			if err != nil || len(left.GetSockets()) > 0 {
				t.Errorf("%v; left behind: %v", err, left)
			}
		})
	}
}
