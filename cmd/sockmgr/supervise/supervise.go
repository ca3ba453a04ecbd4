package supervise

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
)

// Config is what Run needs.
type Config struct {
	Program  string             // of the daemon
	Args     []string           // with its name
	Handover []string           // where a daemon that runs already answers
	Given    []fdstore.Returned // what this process was started with: every daemon gets it
	Log      io.Writer          // lines that nobody can take are lost
	Signals  chan os.Signal     // that have come, and will; nil: none have
}

// Waits before a daemon is started again that was never ready. One that was is
// started at once.
const (
	backoffLeast = 10 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// ends are the signals that end the daemon, and with it the supervisor.
var ends = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}

// reserve is how many descriptors the supervisor keeps for itself.
const reserve = 64

type supervisor struct {
	Config
	store   store
	notices chan notice
	address string // NOTIFY_SOCKET of the daemon
	signals chan os.Signal
	lines   chan string // of the log
	asked   os.Signal   // to end; nil: not yet
	served  bool        // some daemon was ready
}

// Run supervises a daemon until one ends that was asked to, or that never was
// ready the first time, and returns its exit code.
func Run(c Config) int {
	s := &supervisor{Config: c, notices: make(chan notice), signals: make(chan os.Signal, 8), lines: make(chan string, 64)}
	go s.write()
	fd, address, err := bindNotify()
	if err != nil {
		_, _ = fmt.Fprintf(c.Log, "Error: sockmgr supervise: %v\n", err)
		return 1
	}
	s.address, s.store.most = address, limit()
	for _, g := range c.Given {
		s.store.put(g.Name, g.FD, true)
	}
	if c.Signals != nil {
		s.signals = c.Signals
	}
	signal.Notify(s.signals, append([]os.Signal{syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2}, ends...)...) // PIPE: nobody reads the log
	go listen(fd, s.notices)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // what the daemon has started is waited for here when that ends
	d := s.takeOver()
	if d != nil {
		s.log("the daemon (pid %d) that runs goes on under this supervisor", d.pid)
		s.served = true
	}
	for wait := time.Duration(0); ; {
		if d == nil {
			if !s.sleep(wait) {
				return 0
			}
			if d, err = s.start(); err != nil {
				s.log("the daemon cannot be started; it is tried again: %v", err)
				wait = min(max(2*wait, backoffLeast), backoffMost)
				continue
			}
		}
		d = s.attend(d)
		code, how := d.reap()
		switch {
		case d.stopping, s.asked != nil:
			return code
		case !s.served && code <= 128:
			return code // it says itself what is wrong
		case d.ready:
			wait = 0
		default:
			wait = min(max(2*wait, backoffLeast), backoffMost)
		}
		s.log("the daemon (pid %d) %s; the next gets its %d sockets", d.pid, how, s.store.count())
		d = nil
	}
}

// attend does what the daemon tells, until it has ended and all that it told is
// done. It returns the last, if there was an upgrade.
func (s *supervisor) attend(d *daemon) *daemon {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	reapAll(d)
	for {
		select {
		case <-children:
			reapAll(d)
		case n := <-s.notices:
			d = s.act(d, n)
		case sig := <-s.signals:
			s.pass(d, sig)
		case <-d.ended:
			before := d
			if d = s.drain(d); d == before {
				return d
			}
		}
	}
}

// drain does what a daemon that has ended had told before: the kernel has that,
// and then what is sent now.
func (s *supervisor) drain(d *daemon) *daemon {
	last := fdstore.Dial(s.address, func(error) {})
	last.Notify("X_LAST=1")
	go last.Close()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		select {
		case n := <-s.notices:
			if int(n.pid) == os.Getpid() {
				return d
			}
			d = s.act(d, n)
		case <-timer.C:
			return d
		}
	}
}

// act does what one message says. It closes every descriptor that it does not
// keep, which is all there is to BARRIER. It returns who is the daemon after it.
func (s *supervisor) act(d *daemon, n notice) *daemon {
	kept := 0
	if int(n.pid) == d.pid {
		if n.lost {
			s.log("descriptors of %s were lost on the way: raise the limit of open files (ulimit -n)", n.name)
		}
		switch {
		case n.store:
			for _, fd := range n.files {
				if !s.store.put(n.name, fd, false) {
					break
				}
				kept++
			}
			if s.store.count() >= s.store.most {
				s.log("%d descriptors are kept; there is no room for %s", s.store.count(), n.name)
			}
		case n.remove:
			s.store.remove(n.name)
		}
		d.ready = d.ready || n.ready
		s.served = s.served || n.ready
		if n.stopping {
			d.stopping = true
			s.store.clear() // no other comes after it
		}
	}
	for _, fd := range n.files[kept:] {
		_ = unix.Close(fd)
	}
	if n.main > 0 && n.main != d.pid && (int(n.pid) == d.pid || int(n.pid) == n.main && isChild(n.main)) {
		return s.succeed(d, n.main)
	}
	return d
}

// pass passes a signal on.
func (s *supervisor) pass(d *daemon, sig os.Signal) {
	number, ok := sig.(syscall.Signal)
	if !ok || number == syscall.SIGPIPE {
		return
	}
	if slices.Contains(ends, sig) {
		s.asked = sig
	}
	if err := unix.PidfdSendSignal(d.pidfd, number, nil, 0); err != nil {
		s.log("the daemon (pid %d) cannot be told: %v", d.pid, err)
	}
}

// sleep waits; it reports whether to go on.
func (s *supervisor) sleep(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return s.asked == nil
		case n := <-s.notices: // of nobody who is there still
			for _, fd := range n.files {
				_ = unix.Close(fd)
			}
		case sig := <-s.signals:
			if slices.Contains(ends, sig) {
				return false
			}
		}
	}
}

// log never waits: lines that nobody reads are lost.
func (s *supervisor) log(format string, args ...any) {
	select {
	case s.lines <- fmt.Sprintf("sockmgr supervise: "+format+"\n", args...):
	default:
	}
}

func (s *supervisor) write() {
	for line := range s.lines {
		_, _ = io.WriteString(s.Log, line) // there is nowhere to complain
	}
}

// limit raises the limit of open files, and returns how many may be kept.
func limit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024 - reserve
	}
	if raised := (unix.Rlimit{Cur: l.Max, Max: l.Max}); unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
		l = raised
	}
	return max(int(min(l.Cur, 1<<20))-reserve, reserve)
}
