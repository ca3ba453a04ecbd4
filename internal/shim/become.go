package shim

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// umask is the one that programs are used to, whatever the daemon's is.
const umask = 0o022

// become is the life of a shim: it returns only when it has failed. All that it
// does to itself it does to the one thread that execve leaves.
func become(text string) {
	fd, err := strconv.Atoi(text)
	if err != nil {
		return // not by Fork
	}
	pair := os.NewFile(uintptr(fd), "shim")
	var t task
	if err := json.NewDecoder(pair).Decode(&t); err != nil {
		return // the daemon is gone
	}
	why := t.run(fd)
	failed, ok := errors.AsType[*Error](why)
	if !ok {
		failed = &Error{Step: why.Error()}
	}
	_ = json.NewEncoder(pair).Encode(failed) // if nobody reads it, nobody wants the program
}

// run gives up all that the program shall not have, and runs it.
func (t *task) run(report int) error {
	unix.Umask(umask)
	unix.CloseOnExec(report)
	if err := closeFrom(t.Keep); err != nil {
		return err
	}
	if err := t.dropRights(); err != nil {
		return err
	}
	// After the change of user, which would undo it. It is the thread's, and
	// stays the program's.
	if t.Leash {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
			return failure("prctl PR_SET_PDEATHSIG", err)
		}
	}
	if os.Getppid() != t.Parent {
		return errors.New("the daemon has ended meanwhile")
	}
	if err := unix.Chdir(t.Dir); err != nil {
		return failure("chdir "+t.Dir, err)
	}
	env := t.Env
	if t.ListenPID {
		env = append(env, Variable+"="+strconv.Itoa(os.Getpid()))
	}
	if err := resetSignals(); err != nil {
		return err
	}
	return failure("execve "+t.Path, syscall.Exec(t.Path, t.Argv, env))
}

// failure is what a system call has to say.
func failure(step string, err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return errors.New(step + ": " + err.Error())
	}
	return &Error{Step: step, Errno: errno}
}

// closeFrom has everything from n on closed when the program begins.
func closeFrom(n int) error {
	err := unix.CloseRange(uint(n), 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	entries, other := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if other != nil {
		return failure("close_range", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= n {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
