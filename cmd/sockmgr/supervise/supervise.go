package supervise

import (
	"cmp"
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
	Heirs    bool               // the daemon is a child already, or one of a child
}

// Waits before a daemon is started again. One that has served for a while, or
// that somebody else has killed, is started at once.
const (
	backoffLeast = 10 * time.Millisecond
	backoffMost  = 5 * time.Second
	settled      = 5 * time.Second
	mostLooks    = 8 // for a daemon that is to be told to end: two seconds and a half
)

// ends are the signals that end the daemon, and with it the supervisor.
var ends = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}

// reserve is how many descriptors the supervisor keeps for itself.
const reserve = 64

type supervisor struct {
	Config
	store    store
	d        *daemon // nil: none is there
	notices  chan fdstore.Notice
	address  string // NOTIFY_SOCKET of the daemon
	signals  chan os.Signal
	children chan os.Signal // some child has ended
	lines    lines
	watchdog time.Duration // 0: off
	asked    os.Signal     // to end; nil: not yet
	served   bool          // some daemon was ready
	worst    int           // exit code of a daemon that this process, or one of its heirs, has handed over to
}

// Run supervises a daemon until one ends that was asked to, or that never was
// ready the first time, and returns its exit code.
func Run(c Config) int {
	s := &supervisor{Config: c, notices: make(chan fdstore.Notice), signals: cmp.Or(c.Signals, make(chan os.Signal, 8)), children: make(chan os.Signal, 1), lines: newLines(), watchdog: watchdogTime()}
	go s.lines.write(c.Log)
	fd, address, err := fdstore.Bind()
	if err != nil {
		_, _ = fmt.Fprintf(c.Log, "Error: sockmgr supervise: %v\n", err)
		return 1
	}
	s.address, s.store.most = address, limit()
	for _, g := range c.Given {
		s.store.put(g.Name, g.FD, true)
	}
	signal.Notify(s.signals, append([]os.Signal{syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2}, ends...)...) // PIPE: nobody reads the log
	signal.Notify(s.children, syscall.SIGCHLD)
	go fdstore.Receive(fd, s.notices)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // what the daemon has started is waited for here when that ends
	if s.first() {
		return 0
	}
	for wait := time.Duration(0); ; {
		if s.d == nil {
			timer := time.NewTimer(wait)
			if s.attend(timer.C); s.asked != nil {
				return 0
			}
			if s.d, err = s.start(); err != nil {
				s.lines.add("the daemon cannot be started; it is tried again: %v", err)
				wait = longer(wait)
				continue
			}
		}
		s.attend(nil)
		d := s.d
		code, how := s.bury(d)
		if s.d = s.heirOf(d); s.d != nil {
			s.lines.add("the daemon (pid %d) %s in the middle of an upgrade; pid %d goes on if it has all, and ends if not", d.pid, how, s.d.pid)
			continue
		}
		switch {
		case d.stopping, s.asked != nil:
			return code
		case !s.served && code <= 128:
			return code // it says itself what is wrong
		case d.ready && (code == killed || time.Since(d.began) > settled):
			wait = 0
		default:
			wait = longer(wait)
		}
		s.lines.add("the daemon (pid %d) %s; the next gets its %d sockets", d.pid, how, s.store.count())
	}
}

// first looks for a daemon that is there already. It reports whether this process
// is to end instead: its daemon was told to just now, or it was itself, and no
// daemon is found that could be.
func (s *supervisor) first() (end bool) {
	s.d = s.takeOver()
	asked := 0
	for wait := longer(0); s.Heirs && s.d == nil; wait = min(longer(wait), time.Second) {
		none := s.reap()
		if s.worst > 0 {
			return false // it was killed
		}
		timer := time.NewTimer(wait)
		if !none {
			s.attend(timer.C)
		}
		switch {
		case none:
			return true
		case asked == mostLooks:
			s.lines.add("there is a daemon that does not answer at %v: it is not told to end", s.Handover)
			return true
		}
		if s.asked != nil { // the daemon is told once it is found
			asked++
			<-timer.C
		}
		s.d = s.takeOver()
	}
	if s.d != nil {
		s.lines.add("the daemon (pid %d) that runs goes on under this supervisor", s.d.pid)
		s.served = true
		if s.asked != nil {
			s.pass(s.asked)
		}
	}
	return false
}

func longer(wait time.Duration) time.Duration { return min(max(2*wait, backoffLeast), backoffMost) }

// attend does what is told, until the daemon has ended and all that it told is
// done. Without a daemon it returns at the time, or when it is asked to end. An
// upgrade puts another daemon in the place of the one that was.
func (s *supervisor) attend(until <-chan time.Time) {
	look := time.NewTicker(max(s.watchdog, time.Second) / 4)
	defer look.Stop()
	for s.d != nil || s.asked == nil {
		var ended chan struct{}
		if s.d != nil {
			ended = s.d.ended
		}
		select {
		case n := <-s.notices:
			s.act(n)
		case sig := <-s.signals:
			s.pass(sig)
		case <-s.children:
			s.reap()
		case <-look.C:
			s.look()
		case <-until:
			return
		case <-ended:
			before := s.d
			if s.drain(); s.d == before {
				return
			}
		}
	}
}

// drain does what a daemon that has ended had told before: the kernel has that,
// and then what is sent now.
func (s *supervisor) drain() {
	last := fdstore.Dial(s.address, func(error) {})
	last.Notify("X_LAST=1")
	go last.Close()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		select {
		case n := <-s.notices:
			if int(n.PID) == os.Getpid() {
				return
			}
			s.act(n)
		case <-timer.C:
			return
		}
	}
}

// act does what one message says. It closes every descriptor that it does not
// keep, which is all there is to BARRIER.
func (s *supervisor) act(n fdstore.Notice) {
	kept, d := 0, s.d
	if d != nil && int(n.PID) == d.pid {
		kept = s.keep(n)
		if n.Ready {
			d.ready, s.served = true, true
		}
		if n.Fed || n.Ready && d.watched {
			d.watched, d.fed, d.late = true, time.Now(), 0
		}
		if n.Stopping {
			d.stopping = true
			s.store.clear() // no other comes after it
		}
		if n.Heir >= 0 {
			d.heir = n.Heir
		}
	}
	for _, fd := range n.Files[kept:] {
		_ = unix.Close(fd)
	}
	if d != nil && n.Main > 0 && n.Main != d.pid && (int(n.PID) == d.pid || int(n.PID) == n.Main) && d.isKin(n.Main) {
		s.succeed(n.Main)
	}
}

// keep does what a message says of descriptors. It returns how many are kept.
func (s *supervisor) keep(n fdstore.Notice) (kept int) {
	if n.Lost {
		s.lines.add("descriptors of %s were lost on the way: raise the limit of open files (ulimit -n)", n.Name)
	}
	switch {
	case n.Store:
		for kept < len(n.Files) && s.store.put(n.Name, n.Files[kept], false) {
			kept++
		}
		if s.store.count() >= s.store.most {
			s.lines.add("%d descriptors are kept; there is no room for %s", s.store.count(), n.Name)
		}
	case n.Remove:
		s.store.remove(n.Name)
	}
	return kept
}

// pass passes a signal on.
func (s *supervisor) pass(sig os.Signal) {
	number, ok := sig.(syscall.Signal)
	if !ok || number == syscall.SIGPIPE {
		return
	}
	if slices.Contains(ends, sig) {
		s.asked = sig
	}
	if s.d == nil {
		return
	}
	if err := unix.PidfdSendSignal(s.d.pidfd, number, nil, 0); err != nil {
		s.lines.add("the daemon (pid %d) cannot be told: %v", s.d.pid, err)
	}
}

// limit is how many may be kept. The limit of open files is raised already: Go does so
// at the start of a program, and gives a child what was before.
func limit() int {
	l := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &l) // it is known everywhere
	return max(int(min(l.Cur, 1<<20))-reserve, reserve)
}
