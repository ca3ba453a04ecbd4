package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const shimName = "[sockmgr: gives up rights to run a program]"

// A Program is what shall run, and as whom.
type Program struct {
	Path      string
	Argv      []string
	Env       []string
	Dir       string
	As        *User // nil: the daemon's
	Powerless bool  // root's capabilities are of no use to it either
	ListenPID bool  // it looks for LISTEN_PID
}

// A User is whom a program runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32
}

// task is what the shim is told.
type task struct {
	Program
	Keep   int  // descriptors, from 0 on
	Parent int  // the daemon's pid
	Leash  bool // it gets SIGTERM when the thread that forked it ends
}

// An Error says what the shim could not do.
type Error struct {
	Step  string // a system call, and with what
	Errno syscall.Errno
}

// Error names the step and the errno.
func (e *Error) Error() string {
	if name := unix.ErrnoName(e.Errno); name != "" {
		return fmt.Sprintf("%s: %v (%s)", e.Step, e.Errno, name)
	}
	return e.Step
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// A Start is a program on its way.
type Start struct {
	task  task
	pair  *os.File // the daemon's end
	other int      // the shim's, -1 once it has it
}

// Prepare makes what Fork and Wait need. Close is to be called.
func Prepare(p Program) (*Start, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	// It blocks, and so has a thread while it is waited for: nothing here ends
	// by being closed.
	return &Start{task: task{Program: p, Parent: os.Getpid()}, pair: os.NewFile(uintptr(fds[0]), "shim"), other: fds[1]}, nil
}

// Fork starts the shim with files as descriptors 0, 1, 2 ... of the program, as
// the leader of a session. A program on a leash gets SIGTERM when the thread that
// calls this ends, which is when the daemon ends if the caller sees to that.
func (s *Start) Fork(files []uintptr) (pid, pidfd int, err error) {
	s.task.Keep = len(files)
	pidfd = -1
	pid, err = syscall.ForkExec(SelfPath, []string{shimName, strconv.Itoa(len(files))}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: append(slices.Clip(files), uintptr(s.other)),
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	_ = unix.Close(s.other) // the shim's alone from now on
	s.other = -1
	if err != nil {
		return 0, -1, &os.PathError{Op: "fork/exec", Path: SelfPath, Err: err}
	}
	return pid, pidfd, nil
}

// Wait tells the shim what to do, and returns when the program runs, or what
// kept it from that. The process ends by itself then, and is to be waited for.
func (s *Start) Wait(leash bool) error {
	s.task.Leash = leash
	sent := json.NewEncoder(s.pair).Encode(s.task)
	text, err := io.ReadAll(io.LimitReader(s.pair, 64<<10))
	var failed Error
	switch {
	case len(text) > 0:
		if err := json.Unmarshal(text, &failed); err != nil {
			return fmt.Errorf("the shim says %.80q: %w", text, err)
		}
		return &failed
	case sent != nil: // it ended before it had read all, and said nothing: it was killed
		return fmt.Errorf("the shim did not listen: %w", sent)
	}
	return err
}

// Close lets go of what is left.
func (s *Start) Close() error {
	var err error
	if s.other >= 0 {
		err = unix.Close(s.other)
	}
	return errors.Join(err, s.pair.Close())
}
