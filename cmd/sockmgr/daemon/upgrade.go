package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/succession"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/service"
)

// How long the new program may take. All but the last are of a daemon that serves
// meanwhile.
const (
	helloTime = 5 * time.Second
	checkTime = time.Minute
	takeTime  = 2 * time.Second  // the loop stands still
	takeEach  = time.Millisecond // and so much more for each descriptor
)

// An upgrader puts another program in the place of this one.
type upgrader struct {
	log       hclog.Logger
	m         *manager.Manager
	keep      *keeper
	longNames bool
	succeeded bool  // this process has taken over from another itself
	former    []int // and from these

	running atomic.Bool
	done    chan *legacy // of size 1: it has
}

// An heir is the process that has taken over.
type heir struct {
	cmd     *exec.Cmd
	program string
	argv    []string
	conn    *succession.Conn
}

// A legacy is an heir that has all but what could not move, which has so long to finish.
type legacy struct {
	*heir
	drain      time.Duration
	staying    int64
	controls   []string // where it answers
	ended      bool     // it was told to
	supervised bool     // by who knows the heir
	passes     bool     // signals, which are for the heir: nobody else does
}

// Upgrade is service.Config.Upgrade.
func (u *upgrader) Upgrade(ctx context.Context, r service.Upgrade, tell func(service.UpgradePhase, string, int)) (err error) {
	if !u.running.CompareAndSwap(false, true) {
		return &listeners.Fault{Reason: listeners.UpgradeRunning, Message: "an upgrade runs already", Fix: "wait until it is over: sockctl events -f"}
	}
	handed := false
	defer func() {
		if !handed {
			u.running.Store(false)
		}
	}()
	program, err := programOf(r.Executable)
	if err != nil {
		return err
	}
	note := func(what string, severity manager.Severity, message string, attributes map[string]string) {
		u.m.Tell(ctx, manager.Event{Resource: "daemon", Type: "daemon.upgrade." + what, Severity: severity, Message: message, Attributes: attributes})
	}
	attributes := map[string]string{"executable": program}
	if !r.ValidateOnly {
		note("started", manager.Notice, "the daemon is upgraded to "+program, attributes)
	}
	tell(service.UpgradeValidating, program+" is started and checked", 0)
	h, version, err := u.start(program, r.Executable != "")
	if err == nil && !r.ValidateOnly {
		tell(service.UpgradeHandingOver, fmt.Sprintf("%s (version %s) takes over", program, version), h.cmd.Process.Pid)
		if err = u.handOver(ctx, h, r.Drain, tell); err == nil {
			handed = true
			return nil
		}
	}
	if h != nil {
		how := h.kill(grace(err))
		if isGone(err) {
			err = fmt.Errorf("it ended (%s) before it had taken over", how)
		}
	}
	if err != nil {
		err = &listeners.Fault{
			Reason: listeners.UpgradeFailed, Message: fmt.Sprintf("%s cannot take over, and the daemon goes on as before: %v", program, err),
			Fix: "what the program says of itself is in the daemon's log; try with --validate-only", Meta: attributes,
		}
		u.log.Error("upgrade failed; the daemon goes on", "executable", program, "error", err)
		if !r.ValidateOnly {
			note("failed", manager.Failure, err.Error(), attributes)
		}
		return err
	}
	tell(service.UpgradeDone, fmt.Sprintf("%s (version %s) could take over", program, version), 0)
	return nil
}

// programOf is the program that is to be run, by its path. What it is becomes the
// daemon, so nobody else may have a hand in it.
func programOf(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("which program is this: %w", err)
		}
		path = strings.TrimSuffix(self, " (deleted)")
	}
	bad := func(format string, args ...any) error {
		return &listeners.Fault{
			Reason: listeners.UpgradeFailed, Message: fmt.Sprintf("cannot run %s: ", path) + fmt.Sprintf(format, args...) + "; the daemon goes on as before",
			Meta: map[string]string{"executable": path},
		}
	}
	if !filepath.IsAbs(path) {
		return "", &listeners.Violation{Field: "executable", Message: fmt.Sprintf("%.200q is not an absolute path", path)}
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", bad("%v", errors.Unwrap(err))
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.Mode().IsRegular():
		return "", bad("it is not a file")
	case ok && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return "", bad("it belongs to another user (uid %d), who could change it", st.Uid)
	case fi.Mode().Perm()&0o002 != 0:
		return "", bad("everybody may write it: chmod o-w it")
	}
	return path, nil
}

// start runs a program and has it check whether it can take over.
func (u *upgrader) start(program string, asked bool) (h *heir, version string, err error) {
	conn, theirs, err := succession.Pair()
	if err != nil {
		return nil, "", err
	}
	argv := slices.Clone(os.Args)
	if asked {
		argv[0] = program
	}
	h = &heir{program: program, argv: argv, conn: conn, cmd: &exec.Cmd{
		Path: program, Args: argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{theirs},
		Env: append(os.Environ(), succession.Variable+"=3"),
	}}
	if socket := u.keep.address(); socket != "" {
		h.cmd.Env = append(h.cmd.Env, "NOTIFY_SOCKET="+socket)
	}
	err = h.cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = conn.Close()
		return nil, "", errors.Unwrap(err)
	}
	hello, _, err := conn.Receive(helloTime, succession.Hello)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return h, "", fmt.Errorf("it did not say hello within %v: is it sockmgr?", helloTime)
	case isGone(err):
		return h, "", fmt.Errorf("it ended (%s) before it said hello: is it sockmgr, of a version that can be upgraded to?", h.kill(grace(err)))
	case err != nil:
		return h, "", err
	case hello.Protocol != succession.Protocol:
		return h, hello.Version, fmt.Errorf("it (version %s) speaks protocol %d of handing over, and this daemon (version %s) %d: restart the daemon instead", hello.Version, hello.Protocol, Version, succession.Protocol)
	}
	if err := u.introduce(h); err != nil {
		return h, hello.Version, err
	}
	_, _, err = conn.Receive(checkTime, succession.Valid)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("it did not finish its checks within %v", checkTime)
	}
	return h, hello.Version, err
}

// introduce gives the program what it needs for that.
func (u *upgrader) introduce(h *heir) error {
	epoch, err := u.m.Epoch()
	if err != nil {
		return err
	}
	m := succession.Message{Step: succession.Begin, Store: u.m.Store(), Epoch: int64(epoch), LongNames: u.longNames, Former: append(living(u.former), os.Getpid())}
	names, files, err := u.keep.ownFiles()
	defer func() {
		for _, fd := range files {
			_ = unix.Close(fd) // they are copies
		}
	}()
	if err != nil {
		return err
	}
	m.Names = names
	if m.Store != manager.StoreAt("") {
		f, err := memory("store")
		if err != nil {
			return err
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		err = errors.Join(err, u.m.SnapshotStore(f), f.Close())
		if fd >= 0 {
			files = append(files, fd)
		}
		if err != nil {
			return err
		}
	}
	return h.conn.Send(m, takeTime, files...)
}

// memory is a file that is nowhere.
func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate("sockmgr-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// handOver gives all to the program.
func (u *upgrader) handOver(ctx context.Context, h *heir, drain time.Duration, tell func(service.UpgradePhase, string, int)) error {
	orHow := func(err error) error {
		if err == nil {
			return nil
		}
		how := h.kill(grace(err)) // it must not serve, nor have the store, when this one goes on
		if isGone(err) {
			return fmt.Errorf("it ended (%s) while it took over", how)
		}
		return err
	}
	e := &estate{to: h.conn}
	defer e.close()
	err := u.m.HandOver(context.WithoutCancel(ctx), manager.Heir{
		Stays: u.stays(),
		Store: func() error {
			err := h.conn.Send(succession.Message{Step: succession.Store}, checkTime)
			if err == nil {
				_, _, err = h.conn.Receive(checkTime, succession.Open)
			}
			if err == nil {
				err = e.open()
			}
			return orHow(err)
		},
		Take: func(part *manager.Estate, files []int) error { return orHow(e.take(part, files)) },
		Go:   func() error { return orHow(e.finish()) },
	})
	if err != nil {
		return err
	}
	u.keep.leaveOwn()
	pid := h.cmd.Process.Pid
	u.keep.passOn(pid)
	_ = h.conn.Send(succession.Message{Step: succession.Told, Socket: u.keep.address()}, takeTime) // or it has ended, and its supervisor knows
	_ = h.conn.Close()
	u.log.Info("upgraded: another process serves", "pid", pid, "executable", h.program)
	l := &legacy{heir: h, drain: drain, staying: u.m.Staying(), passes: u.stays()}
	if l.staying > 0 {
		tell(service.UpgradeDraining, fmt.Sprintf("%d connections cannot move, and finish in the process before (pid %d)", l.staying, os.Getpid()), pid)
	}
	tell(service.UpgradeDone, fmt.Sprintf("pid %d serves", pid), pid)
	u.done <- l
	return nil
}

// stays reports whether this process is there as long as the daemon is, whichever
// process that is: see watchOver.
func (u *upgrader) stays() bool { return !u.succeeded && !u.keep.isSupervised() }

// isGone reports whether an error is the end of the program.
func isGone(err error) bool {
	return errors.Is(err, succession.ErrGone) || errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// grace is how long a program has to end by itself, so that it can be told how it
// did: one that has closed its end is about to.
func grace(err error) time.Duration {
	if isGone(err) {
		return 100 * time.Millisecond
	}
	return 0
}

// kill ends the program, if it has not ended, and says how it did.
func (h *heir) kill(after time.Duration) string {
	_ = h.conn.Close()
	if h.cmd.ProcessState == nil {
		timer := time.AfterFunc(after, func() { _ = h.cmd.Process.Kill() }) // or it has ended
		defer timer.Stop()
		_ = h.cmd.Wait() // ProcessState tells
	}
	return h.cmd.ProcessState.String()
}

// living leaves out the pids of processes that have ended: another may get such
// a number, and is nobody's predecessor.
func living(pids []int) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
}
