package process_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/process"
)

// What is said of a child is so, whatever its program is called, and while it is a
// zombie too; of one that is waited for nothing is said.
func TestStatAndHow(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("SKIPPED: there is no /proc here")
	}
	program := t.TempDir() + "/a) R 1 (b"
	if err := os.WriteFile(program, []byte("#!/bin/sh\nread x; exit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for end, want := range map[syscall.Signal]string{0: "ended with exit code 3", unix.SIGKILL: "was killed: killed"} {
		cmd := exec.Command(program)
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		self, errSelf := process.StatOf(os.Getpid())
		stat, err := process.StatOf(cmd.Process.Pid)
		if err != nil || errSelf != nil || stat.Parent != os.Getpid() || self.Parent != os.Getppid() || stat.Start < self.Start {
			t.Errorf("the child is %+v, %v; this process is %+v, %v", stat, err, self, errSelf)
		}
		if end != 0 {
			err = cmd.Process.Signal(end)
		} else {
			err = in.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		if zombie, err := process.StatOf(cmd.Process.Pid); err != nil || zombie != stat {
			t.Errorf("as a zombie it is %+v, %v, was %+v", zombie, err, stat)
		}
		_ = cmd.Wait() // ProcessState tells
		code, how := process.How(unix.WaitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)))
		if how != want || end == 0 && code != 3 || end != 0 && code != 128+int(end) {
			t.Errorf("it %s, with %d; it should have: %s", how, code, want)
		}
		if _, err := process.StatOf(cmd.Process.Pid); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after it was waited for: %v", err)
		}
	}
}
