package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/succession"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
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
	succeeded bool             // this process has taken over from another itself
	former    []access.Process // and from these

	done chan *legacy // of size 1: it has

	mu        sync.Mutex
	over      chan struct{} // of the upgrade that is under way, or was made; nil: there is none
	heir      *heir         // of that, once it runs
	committed bool          // nothing stops it any more
	ending    bool          // the daemon is: no other begins
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
	passes     bool     // SIGUSR2, which is for the heir: nobody else does
	retired    chan struct{}
	passing    sync.WaitGroup // ends after that
}

// Upgrade is service.Config.Upgrade.
func (u *upgrader) Upgrade(ctx context.Context, r service.Upgrade, tell func(service.UpgradePhase, string, int)) (err error) {
	if err := u.begin(); err != nil {
		return err
	}
	handed := false
	defer func() { u.finished(handed) }()
	program, err := programOf(r.Executable)
	if err != nil {
		return err
	}
	note := func(what string, severity manager.Severity, message string, attributes map[string]string) {
		u.m.Tell(ctx, manager.Event{Resource: "daemon", Type: "daemon.upgrade." + what, Severity: severity, Message: message, Attributes: attributes})
	}
	named := cmp.Or(r.Executable, program)
	attributes := map[string]string{"executable": named}
	if !r.ValidateOnly {
		note("started", manager.Notice, "the daemon is upgraded to "+named, attributes)
	}
	tell(service.UpgradeValidating, named+" is started and checked", 0)
	h, version, err := u.start(program, cmp.Or(r.Executable, os.Args[0]))
	if err == nil && !r.ValidateOnly {
		tell(service.UpgradeHandingOver, fmt.Sprintf("%s (version %s) takes over", named, version), h.cmd.Process.Pid)
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
		err = u.failure(named, err)
		u.log.Error("upgrade failed", "executable", named, "error", err)
		if !r.ValidateOnly {
			note("failed", manager.Failure, err.Error(), attributes)
		}
		return err
	}
	tell(service.UpgradeDone, fmt.Sprintf("%s (version %s) could take over", named, version), 0)
	return nil
}

// start runs a program, by a name, and has it check whether it can take over.
func (u *upgrader) start(program, name string) (h *heir, version string, err error) {
	conn, theirs, err := succession.Pair()
	if err != nil {
		return nil, "", err
	}
	argv := slices.Clone(os.Args)
	argv[0] = name
	h = &heir{program: program, argv: argv, conn: conn, cmd: &exec.Cmd{
		Path: program, Args: argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{theirs},
		Env: append(heirEnviron(), succession.Variable+"=3"),
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
	if err := u.started(h); err != nil {
		return h, "", err
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

// formerToo are the daemons before the next one: of those that were before this
// one, who lives.
func (u *upgrader) formerToo() (all []succession.Former) {
	for _, p := range append(slices.Clone(u.former), access.ThisProcess()) {
		if p.Lives() || p.PID == os.Getpid() {
			all = append(all, succession.Former(p))
		}
	}
	return all
}

// introduce gives the program what it needs for that.
func (u *upgrader) introduce(h *heir) error {
	epoch, err := u.m.Epoch()
	if err != nil {
		return err
	}
	m := succession.Message{Step: succession.Begin, Store: u.m.Store(), Epoch: int64(epoch), LongNames: u.longNames, Former: u.formerToo()}
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
	e := &estate{to: h.conn, commit: u.commit}
	defer e.close()
	u.keep.expect(h.cmd.Process.Pid)
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
		u.keep.expect(0)
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
