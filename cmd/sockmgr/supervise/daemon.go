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
	child    bool // of ours: else its exit code is another's
	ready    bool
	stopping bool // it was asked to end, and said so
	ended    chan struct{}
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
	d := &daemon{pidfd: -1, child: true, ended: make(chan struct{})}
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
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			s.log("the daemon (pid %d) at %s cannot be watched: %v", pid, path, err)
			continue
		}
		d := &daemon{pid: pid, pidfd: pidfd, ready: true, ended: make(chan struct{})}
		go d.watch()
		return d
	}
	return nil
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
	if !d.child {
		return 0, "ended"
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(d.pid, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 1, "ended: " + err.Error()
		}
		break
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), "was killed: " + status.Signal().String()
	}
	return status.ExitStatus(), "ended with exit code " + strconv.Itoa(status.ExitStatus())
}
