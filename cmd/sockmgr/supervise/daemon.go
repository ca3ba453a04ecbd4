package supervise

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/internal/handover"
)

// A daemon is the process that is supervised.
type daemon struct {
	pid      int
	pidfd    int
	ready    bool
	stopping bool // it was asked to end, and said so
	ended    chan struct{}
	status   *unix.WaitStatus // nil: it was not waited for yet
}

// start starts a daemon with what is stored.
func (s *supervisor) start() (*daemon, error) {
	files, names := s.store.files()
	env := make([]string, 0, len(os.Environ())+3)
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); name != "NOTIFY_SOCKET" && name != fdstore.LongNames && !strings.HasPrefix(name, "LISTEN_") {
			env = append(env, pair)
		}
	}
	env = append(env, "NOTIFY_SOCKET="+s.address)
	longNames := ""
	if len(files) > 0 {
		fd, err := fdstore.NamesFile(names)
		if err != nil {
			return nil, err
		}
		defer func() { _ = unix.Close(fd) }()
		longNames = strconv.Itoa(3 + len(files))
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(files)))
		files = append(files, uintptr(fd))
	}
	env = append(env, fdstore.LongNames+"="+longNames)
	d := &daemon{pidfd: -1, ended: make(chan struct{})}
	var err error
	d.pid, err = syscall.ForkExec(s.Program, s.Args, &syscall.ProcAttr{
		Env: env, Files: append([]uintptr{0, 1, 2}, files...),
		Sys: &syscall.SysProcAttr{PidFD: &d.pidfd, Setpgid: true}, // Ctrl-C comes from here, once
	})
	if err != nil {
		return nil, &os.PathError{Op: "fork/exec", Path: s.Program, Err: err}
	}
	go d.watch()
	return d, nil
}

// takeOver finds a daemon that has lost its supervisor, and takes its place. It
// sends all its sockets.
func (s *supervisor) takeOver() *daemon {
	for _, path := range s.Handover {
		_, _, pid, err := handover.Ask(path, handover.Request{Verb: handover.Supervise, Socket: s.address})
		if err != nil {
			if _, refused := errors.AsType[*handover.Error](err); refused {
				s.log("the daemon at %s does not come under this supervisor: %v", path, err)
			}
			continue // nobody is there
		}
		if d := s.find(pid); d != nil {
			return d
		}
	}
	return nil
}

// find makes a daemon of a process that runs already; nil: it cannot be watched.
func (s *supervisor) find(pid int) *daemon {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		s.log("the daemon (pid %d) cannot be watched: %v", pid, err)
		return nil
	}
	d := &daemon{pid: pid, pidfd: pidfd, ready: true, ended: make(chan struct{})}
	go d.watch()
	return d
}

// isChild reports whether a process that runs is a child of this one.
func isChild(pid int) bool {
	who, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
	return err == nil && who == 0
}

// succeed is that the daemon was upgraded: another process has its place. The old
// one ends by itself, and then the new one is a child of this process (see Run).
func (s *supervisor) succeed(d *daemon, pid int) *daemon {
	next := s.find(pid)
	if next == nil {
		return d
	}
	s.log("the daemon (pid %d) is upgraded: it is pid %d now", d.pid, pid)
	go func() {
		<-d.ended
		_, _ = d.reap()
	}()
	if s.asked != nil { // the old one was, and does not pass it on
		s.pass(next, s.asked)
	}
	return next
}

// watch waits for the end.
func (d *daemon) watch() {
	defer close(d.ended)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(d.pidfd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// reap returns how it ended: its exit code, or the signal.
func (d *daemon) reap() (code int, how string) {
	_ = unix.Close(d.pidfd)
	var status unix.WaitStatus
	for {
		if d.status != nil {
			status = *d.status
			break
		}
		_, err := unix.Wait4(d.pid, &status, 0, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return 0, "ended" // it is another's child
		}
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), "was killed: " + status.Signal().String()
	}
	return status.ExitStatus(), "ended with exit code " + strconv.Itoa(status.ExitStatus())
}

// reapAll takes note of all that has ended: what daemons have started, and left
// behind, ends as a child of this process.
func reapAll(d *daemon) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || pid <= 0:
			return
		case pid == d.pid:
			d.status = &status
		}
	}
}
