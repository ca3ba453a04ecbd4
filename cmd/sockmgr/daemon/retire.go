package daemon

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/cmd/sockmgr/supervise"
	"github.com/sockmgr/sockmgr/internal/handover"
	"github.com/sockmgr/sockmgr/internal/process"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/service"
)

// watchUpgradeSignal upgrades on SIGUSR2, to the program at the same path, until
// ctx ends. It waits for nothing: the daemon may end in the middle of it.
func watchUpgradeSignal(ctx context.Context, u *upgrader) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR2) // to the end: it would kill a process that drains
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
			}
			if u.m.HandedOver() != nil {
				continue // it is passed on: see retire
			}
			err := u.Upgrade(ctx, service.Upgrade{Drain: manager.SpecDrain}, func(service.UpgradePhase, string, int) {})
			if err != nil {
				u.log.Error("SIGUSR2", "error", err)
			}
		}
	}()
}

// retire ends this process but for what could not move, and then that. Signals
// are for the process that has taken over, until watchOver.
func (l *legacy) retire(u *upgrader, signals chan os.Signal) error {
	signal.Notify(signals, syscall.SIGUSR2)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // it is known since Linux 3.4
	ctx, cancel := context.WithCancel(context.Background())
	l.retired = make(chan struct{})
	l.passing.Go(func() {
		defer cancel()
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGUSR2 {
					l.ended = true
					cancel() // what has not moved has no time either
				}
				l.pass(s)
			case <-l.retired:
				return
			}
		}
	})
	err := u.m.Retire(ctx, l.drain)
	l.supervised = u.keep.isSupervised()
	return err
}

// pass passes a signal on to the daemon: which is not the heir any more if that
// was upgraded too. One that ends it is passed on whoever else may do that: who
// sent it here perhaps does not know the heir yet.
func (l *legacy) pass(s os.Signal) {
	number, ok := s.(syscall.Signal)
	if !ok || s == syscall.SIGUSR2 && !l.passes {
		return
	}
	pid := l.cmd.Process.Pid
	for _, path := range handoverPaths(l.controls) {
		if who, err := handover.Who(path); err == nil && who != os.Getpid() { // this one, until the heir listens itself
			pid = who
		}
	}
	_ = syscall.Kill(pid, number) // it may have ended
}

// watchOver is what is left to a process that has been succeeded. Who started it
// waits for it, perhaps, and would take its end for that of the daemon: unless
// there is a supervisor, which knows, it becomes one.
func (l *legacy) watchOver(succeeded bool, signals chan os.Signal, stderr io.Writer) int {
	close(l.retired)
	l.passing.Wait()
	paths := handoverPaths(l.controls)
	switch {
	case l.supervised, succeeded: // of the latter the first of all is waited for
		for len(signals) > 0 {
			l.pass(<-signals) // who sent it believed that this is the daemon still
		}
		return 0
	case l.ended || len(paths) == 0:
		go func() {
			for s := range signals {
				l.pass(s) // a second one ends the heir at once
			}
		}()
		return waitAll()
	}
	debug.FreeOSMemory() // of what was served
	return supervise.Run(supervise.Config{Program: l.program, Args: l.argv, Handover: paths, Log: stderr, Signals: signals, Heirs: true})
}

// waitAll returns once no descendant is left, with the exit code of the last daemon:
// programs that daemons have started end as children of this process, too.
func waitAll() (code int) {
	for {
		end, err := process.WaitAny(0)
		switch {
		case err != nil:
			return code
		case end.Kin:
			code, _ = process.How(end.Status)
		}
	}
}
