package listeners

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/shim"
)

// Go cannot fork without waiting for the exec that follows, and that takes as
// long as the disk does. So programs are started by a few goroutines beside the
// loop.

// maxStarting bounds how many are started at once.
const maxStarting = 4

// A launch is a program that is to be started.
type launch struct {
	spec    *Exec
	servant bool              // this very program
	env     map[string]string // what the daemon sets
	files   []int             // descriptors 0, 1, 2, ... of the program; -1: /dev/null
	done    func(started)     // on the loop
	kept    *Kept             // who gets a copy of what it is known by; nil: nobody
	begun   bool              // it does not wait any more; guarded by the starter's mu, as unasked
	unasked bool              // nobody wants it any more
}

// started is what came of a launch.
type started struct {
	pid, pidfd int
	kept       string // what the keeper has pidfd as; empty: it has not
	err        error
}

// A starter starts programs. Its methods may be called from anywhere.
type starter struct {
	mu      sync.Mutex // the loop takes it: held for a few instructions
	waiting []*launch
	running int // goroutines
	alive   int // programs that this process has forked, or is about to
	thread  chan func()
	held    bool          // none is started for now: see HoldStarts
	idle    chan struct{} // closed when no goroutine runs any more; nil: nobody waits for that
}

// start has a program started. The descriptors must stay open until done is
// called, on the loop.
func (s *Set) start(l *launch) {
	l.kept = s.kept
	s.starter.mu.Lock()
	defer s.starter.mu.Unlock()
	s.starter.waiting = append(s.starter.waiting, l)
	s.starter.began()
	if s.starter.running < maxStarting && !s.starter.held {
		s.starter.running++
		go s.startAll()
	}
}

// startAll starts what waits, and ends. Who asked for a program does not end
// before it has its answer: so these goroutines end before their listeners are
// closed.
func (s *Set) startAll() {
	for {
		l := s.starter.next()
		if l == nil {
			return
		}
		r := l.run(s.starter.fork)
		if r.err != nil {
			s.starter.ended()
		}
		if s.loop.Post(func() { l.done(r) }) != nil && r.err == nil { // the loop has ended
			l.kept.destroy(r)
			s.starter.ended()
		}
	}
}

// next takes out what is to be started next; nil: nothing, and the goroutine
// that asks ends.
func (s *starter) next() *launch {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 && s.waiting[0].unasked {
		s.waiting = s.waiting[1:]
	}
	if len(s.waiting) == 0 {
		s.waiting = nil
	}
	if len(s.waiting) == 0 || s.held {
		if s.running--; s.running == 0 && s.idle != nil {
			close(s.idle)
			s.idle = nil
		}
		return nil
	}
	l := s.waiting[0]
	s.waiting, l.begun = s.waiting[1:], true
	return l
}

// withdraw takes back what waits to be started; it reports whether it did.
func (s *starter) withdraw(l *launch) bool {
	s.mu.Lock()
	did := !l.begun && !l.unasked
	l.unasked = l.unasked || did
	s.mu.Unlock()
	if did {
		s.ended()
	}
	return did
}

// waits reports whether it does so still.
func (s *starter) waits(l *launch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !l.begun
}

// HoldStarts has no further program be started until release is called, and
// returns when those are there that are on their way, or when the time is up. It
// may be called from any goroutine but the loop's.
func (s *Set) HoldStarts(patience time.Duration) (release func()) {
	t := &s.starter
	t.mu.Lock()
	t.held = true
	var idle chan struct{}
	if t.running > 0 {
		if t.idle == nil {
			t.idle = make(chan struct{})
		}
		idle = t.idle
	}
	t.mu.Unlock()
	if idle != nil {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-idle:
		case <-timer.C:
		}
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.held = false
		for range min(maxStarting-t.running, len(t.waiting)) {
			t.running++
			go s.startAll()
		}
	}
}

// destroy ends a program that nobody wants any more, and waits for that.
func (k *Kept) destroy(r started) {
	_ = unix.Kill(-r.pid, unix.SIGKILL)
	_, _ = unix.Wait4(r.pid, nil, 0, nil)
	if r.kept != "" {
		k.remove(r.kept)
	}
	_ = unix.Close(r.pidfd)
}

// run starts the program: in a session and a process group of its own, without
// any right, descriptor or signal of the daemon's: see package shim. If somebody
// keeps a copy of what it is known by, the next daemon has it; else it gets
// SIGTERM when this one is gone, however that ends.
func (l *launch) run(fork func(func())) started {
	p, err := l.program()
	if err != nil {
		return started{err: err}
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return started{err: &os.PathError{Op: "open", Path: os.DevNull, Err: err}}
	}
	defer func() { _ = unix.Close(null) }()
	files := make([]uintptr, len(l.files))
	for i, fd := range l.files {
		if fd < 0 {
			fd = null
		}
		files[i] = uintptr(fd)
	}
	s, err := shim.Prepare(p)
	if err != nil {
		return started{err: err}
	}
	defer func() { _ = s.Close() }()
	r := started{pidfd: -1}
	fork(func() { r.pid, r.pidfd, r.err = s.Fork(files) })
	switch {
	case r.err != nil:
		return r
	case r.pidfd < 0: // before Linux 5.2
		_ = unix.Kill(-r.pid, unix.SIGKILL)
		_, _ = unix.Wait4(r.pid, nil, 0, nil)
		return started{pidfd: -1, err: os.NewSyscallError("clone CLONE_PIDFD", unix.ENOSYS)}
	}
	r.kept = l.kept.storeProgram(r.pid, r.pidfd)
	if err := s.Wait(r.kept == ""); err != nil {
		l.kept.destroy(r)
		return started{pidfd: -1, err: l.because(err)}
	}
	return r
}

// because says why a program could not be run. An errno of execve may mean many
// things.
func (l *launch) because(err error) error {
	if why := l.spec.Runnable(); why != nil {
		return fmt.Errorf("%w (%w)", why, err)
	}
	return fmt.Errorf("%s cannot be run: %w", l.spec.Program(), err)
}

// program is what the shim is told. It reads files.
func (l *launch) program() (shim.Program, error) {
	who, err := accountOf(l.spec.User)
	if err != nil {
		return shim.Program{}, err
	}
	p := shim.Program{
		Path: l.spec.Program(), Argv: l.spec.Command, Env: l.environment(who), Dir: cmp.Or(l.spec.Directory, "/"), As: who.as,
		ListenPID: l.spec.PassListener, Powerless: l.servant,
	}
	if l.servant {
		p.Argv = []string{servantName}
	}
	return p, nil
}

// defaultPath is that of most shells. The daemon's own environment is nobody's
// business.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (l *launch) environment(who account) []string {
	env := map[string]string{"PATH": defaultPath}
	if who.name != "" {
		env["USER"], env["LOGNAME"], env["HOME"] = who.name, who.name, who.home
	}
	maps.Copy(env, l.spec.Environment)
	maps.Copy(env, l.env)
	pairs := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		pairs = append(pairs, name+"="+env[name])
	}
	return pairs
}

// isOurs tells the variables that the daemon sets.
func isOurs(name string) bool {
	switch name {
	case "REMOTE_ADDR", "REMOTE_PORT", "LOCAL_ADDR", "LOCAL_PORT", "PROTO", shim.Variable, "LISTEN_FDS", "LISTEN_FDNAMES":
		return true
	}
	return strings.HasPrefix(name, "SOCKMGR_")
}

// connEnvironment describes a connection as inetd's descendants do.
func connEnvironment(c *conn) map[string]string {
	s := c.socket()
	local, remote := s.local(), Address{Network: c.network(), IP: c.peerName()}
	env := map[string]string{
		"PROTO": strings.ToUpper(string(c.network().Base())), "SOCKMGR_LISTENER": c.l.Name, "SOCKMGR_CONNECTION": strconv.FormatUint(c.cookie(), 16),
	}
	if !c.network().ip() {
		remote = s.peer()
	}
	put := func(which string, a Address) {
		if a.IP.IsValid() {
			env[which+"_ADDR"], env[which+"_PORT"] = a.IP.Addr().String(), strconv.Itoa(int(a.IP.Port()))
		} else if a.Path != "" {
			env[which+"_ADDR"] = a.Path
		}
	}
	put("LOCAL", local)
	put("REMOTE", remote)
	return env
}
