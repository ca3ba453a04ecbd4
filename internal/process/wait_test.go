package process_test

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/process"
)

// Children are told apart from programs that have a session of their own, and what
// runs still is not waited for.
func TestWaitAny(t *testing.T) {
	if _, err := process.WaitAny(unix.WNOHANG); !errors.Is(err, unix.ECHILD) {
		t.Fatalf("there is no child: %v", err)
	}
	for _, session := range []bool{false, true} {
		cmd := exec.Command("/bin/sh", "-c", "read x; exit 7")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := process.WaitAny(unix.WNOHANG); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("it runs: %v", err)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		end, err := process.WaitAny(0)
		if err != nil || end.PID != cmd.Process.Pid || end.Kin == session || end.Status.ExitStatus() != 7 {
			t.Errorf("it ended as %+v, %v; with a session of its own: %v", end, err, session)
		}
		if _, err := process.WaitAny(0); !errors.Is(err, unix.ECHILD) {
			t.Errorf("it is there still: %v", err)
		}
		_ = cmd.Process.Release()
	}
}
