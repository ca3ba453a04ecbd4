package supervise

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/internal/handover"
	"github.com/sockmgr/sockmgr/internal/process"
)

// A daemon is the process that is supervised.
type daemon struct {
	pid      int
	pidfd    int
	ready    bool
	stopping bool      // it was asked to end, and said so
	heir     int       // a process that it has begun to hand over to
	began    time.Time // to be watched
	watched  bool      // it says WATCHDOG=1
	fed      time.Time // when it did last; zero: it need not yet
	late     int       // looks since then at which it should have
	ended    chan struct{}
	status   unix.WaitStatus
	reaped   bool // status is known
}

// killed is the exit code of a daemon that somebody has killed (kill -9).
const killed = 128 + int(unix.SIGKILL)

// start starts a daemon with what is stored.
func (s *supervisor) start() (*daemon, error) {
	files, names := s.store.files()
	env, namesFile, err := fdstore.Environ(s.address, s.watchdog, names)
	if err != nil {
		return nil, err
	}
	if namesFile >= 0 {
		defer func() { _ = unix.Close(namesFile) }()
		files = append(files, uintptr(namesFile))
	}
	d := &daemon{pidfd: -1, began: time.Now(), watched: s.watchdog > 0, ended: make(chan struct{})}
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
		if who, err := handover.Who(path); err == nil && who == os.Getpid() {
			continue // this process was the daemon, and is named until its heir listens itself
		}
		_, _, pid, err := handover.Ask(path, handover.Request{Verb: handover.Supervise, Socket: s.address})
		if err != nil {
			if _, refused := errors.AsType[*handover.Error](err); refused {
				s.lines.add("the daemon at %s does not come under this supervisor: %v", path, err)
			}
			continue // nobody is there
		}
		if d := s.find(pid, &daemon{}); d != nil {
			return d
		}
	}
	return nil
}

// find makes a daemon of a process that runs already, and feeds the watchdog as the
// one before, whose environment it has; nil: it cannot be watched.
func (s *supervisor) find(pid int, before *daemon) *daemon {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		s.lines.add("the daemon (pid %d) cannot be watched: %v", pid, err)
		return nil
	}
	d := &daemon{pid: pid, pidfd: pidfd, ready: true, began: time.Now(), watched: before.watched, ended: make(chan struct{})}
	if d.watched {
		d.fed = d.began
	}
	go d.watch()
	return d
}

// isKin reports whether a process is a child of the daemon's, or, since that has
// ended, of this one: nobody else is let be its heir.
func (d *daemon) isKin(pid int) bool {
	stat, err := process.StatOf(pid)
	return err == nil && (stat.Parent == d.pid || stat.Parent == os.Getpid())
}

// heirOf is who goes on, perhaps, after a daemon that has ended in the middle of
// an upgrade; nil: nobody. It ends by itself if it has not all, and a third one
// beside it would be one too many.
func (s *supervisor) heirOf(d *daemon) *daemon {
	if d.heir <= 0 || !d.isKin(d.heir) {
		return nil
	}
	heir := s.find(d.heir, d)
	if heir == nil {
		return nil
	}
	heir.ready = false
	if s.asked != nil {
		_ = unix.PidfdSendSignal(heir.pidfd, s.asked.(syscall.Signal), nil, 0) // or it has ended
	}
	return heir
}

// succeed is that the daemon was upgraded: another process has its place. The old
// one ends by itself, and then the new one is a child of this process (see Run).
func (s *supervisor) succeed(pid int) {
	before := s.d
	next := s.find(pid, before)
	if next == nil {
		return
	}
	s.lines.add("the daemon (pid %d) is upgraded: it is pid %d now", before.pid, pid)
	go func() {
		<-before.ended
		_ = unix.Close(before.pidfd)
	}()
	s.d = next
	if s.asked != nil { // the old one was, and perhaps did not pass it on
		s.pass(s.asked)
	}
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

// reap takes the exit codes of all that has ended: what a daemon leaves behind when
// it is killed ends as a child of this process. It reports whether nobody is left.
func (s *supervisor) reap() (none bool) {
	for {
		end, err := process.WaitAny(unix.WNOHANG)
		if err != nil {
			return errors.Is(err, unix.ECHILD)
		}
		if end.Kin { // or it is a program that some daemon has started
			code, _ := process.How(end.Status)
			s.worst = max(s.worst, code)
		}
		if s.d != nil && end.PID == s.d.pid {
			s.d.status, s.d.reaped = end.Status, true
		}
	}
}

// bury lets go of a daemon that has ended, and returns how it did: its exit code,
// or the signal.
func (s *supervisor) bury(d *daemon) (code int, how string) {
	s.reap()
	_ = unix.Close(d.pidfd)
	if !d.reaped {
		return 0, "ended" // it is another's child
	}
	return process.How(d.status)
}
