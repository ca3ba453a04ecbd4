//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A victim is a daemon to which things are done.
type victim struct {
	dir  string
	cmd  *exec.Cmd
	conn *grpc.ClientConn
	log  *lockedBuffer
}

// lockedBuffer is what a process wrote so far.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startVictim runs sockmgr, behind other words of a command if there are some.
func startVictim(t *testing.T, dir string, before ...string) *victim {
	t.Helper()
	v := &victim{dir: dir, log: &lockedBuffer{}}
	args := append(slices.Clone(before), "sockmgr", "--control", "unix://"+dir+"/c", "--state", dir+"/state", "--log-level", "info")
	v.cmd = exec.Command(args[0], args[1:]...)
	out := &firstLine{ready: make(chan struct{})}
	v.cmd.Stdout, v.cmd.Stderr = out, v.log
	v.cmd.WaitDelay = time.Second
	v.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
		for _, word := range []string{"DATA RACE", "panic", "goroutine "} {
			if strings.Contains(v.log.String(), word) {
				t.Errorf("logged:\n%s", v.log)
			}
		}
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-out.ready:
	case <-timer.C:
		t.Fatalf("the daemon is not ready: %s", v.log)
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "c"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	v.conn = conn
	return v
}

// kill is kill -9.
func (v *victim) kill(t *testing.T) {
	t.Helper()
	_ = v.conn.Close()
	if err := v.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = v.cmd.Wait() // it was killed
}

// inject makes system calls of a running process fail, as strace -e says it
// (fdatasync:error=EIO), until end is called. With /PATH only those of that file.
func inject(t *testing.T, pid int, faults ...string) (end func()) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("there is no strace (apt-get install strace)")
	}
	var calls []string
	args := []string{"-f", "-p", fmt.Sprint(pid), "-o", os.DevNull, "-e", "signal=none"}
	for _, f := range faults {
		if strings.HasPrefix(f, "/") {
			args = append(args, "-P", f)
			continue
		}
		call, _, _ := strings.Cut(f, ":")
		calls = append(calls, call)
		args = append(args, "-e", "inject="+f)
	}
	cmd := exec.Command("strace", append(args, "-e", "trace="+strings.Join(calls, ","))...)
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it lets go
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	lines := bufio.NewScanner(says)
	var text strings.Builder
	for lines.Scan() {
		if strings.Contains(lines.Text(), "attached") {
			go func() {
				for lines.Scan() { // threads that come and go
				}
			}()
			return end
		}
		text.WriteString(lines.Text())
	}
	if strings.Contains(text.String(), "not permitted") {
		t.Skipf("strace may not trace here: %s", &text)
	}
	t.Fatalf("strace: %s", &text)
	return nil
}
