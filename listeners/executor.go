package listeners

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A program that fails so often in so short a time is given a rest.
const (
	failuresMost = 10
	failuresIn   = 10 * time.Second
	failedSoon   = time.Second // only one that lived shorter has failed
	failingRest  = 30 * time.Second
)

// An executor is the Handler of Exec, and of what is served by processes. Loop
// only.
type executor struct {
	spec     *Exec
	serves   HandlerSpec // by this very program; nil: it is spec's
	l        *Listener   // nil: not attached
	programs int         // that run or are being started
	stderr   *stderrPipe
	failures []time.Duration // when, on the loop's clock; the last failuresMost

	coming *launch    // of what is to have the listening sockets; nil: it is there, or nothing is
	holder *process   // of the listening sockets
	halted bool       // it shall end, also if it is being started still
	given  []int      // their descriptors, as the loop knows them
	again  *mux.Timer // until they may be given to the next
	last   time.Duration
}

// Attach is Attacher.Attach.
func (x *executor) Attach(l *Listener, _ Handler) { x.l = l }

// Detach is Attacher.Detach. A program that has the sockets has to go; those
// that have connections may finish.
func (x *executor) Detach() {
	x.halt()
	x.l.cheerUp()
}

// Handle is never called: programs read by themselves.
func (x *executor) Handle(Peer, []byte) (int, error) { return 0, unix.EOPNOTSUPP }

// launch has a program started, with stderr as descriptor 2.
func (x *executor) launch(set *Set, l *Listener, stdin, stdout int, more []int, env map[string]string, done func(started)) (*launch, error) {
	spec := x.spec
	if set.resolve != nil && x.serves == nil {
		allowed, err := set.resolve(spec)
		if err != nil {
			return nil, err
		}
		spec = allowed
	}
	if x.stderr == nil {
		pipe, err := newStderr(set, l.Name)
		if err != nil {
			return nil, err
		}
		x.stderr = pipe
	}
	if stdout < 0 {
		stdout = x.stderr.w
	}
	x.programs++
	one := &launch{spec: spec, servant: x.serves != nil, env: env, files: append([]int{stdin, stdout, x.stderr.w}, more...), done: done}
	set.start(one)
	return one, nil
}

// over is called when a program has ended, or could not be started.
func (x *executor) over() {
	if x.programs--; x.programs == 0 {
		x.stderr.close()
		x.stderr = nil
	}
}

// judge looks at how a program has ended. One that was told to, or that others
// made end, or of which nobody knows, has not failed.
func (x *executor) judge(l *Listener, p *process, excused bool) {
	if log := l.set.log; log.IsDebug() {
		log.Debug("program ended", "listener", l.Name, "pid", p.pid, "status", p.statusText(), "lived", p.lived)
	}
	well := !p.known || p.status.Exited() && p.status.ExitStatus() == 0
	if !p.asked && !excused && p.lived < failedSoon && !well {
		x.failed(l, fmt.Sprintf("%s ended %v after its start: %s", x.spec.Program(), p.lived.Round(time.Millisecond), p.statusText()))
	}
}

// failed counts, and gives the listener a rest when that was too often.
func (x *executor) failed(l *Listener, why string) {
	now := l.set.loop.Clock()
	l.set.log.Warn("program failed", "listener", l.Name, "error", why)
	x.failures = append(x.failures, now)
	if len(x.failures) < failuresMost {
		return
	}
	first := x.failures[0]
	x.failures = slices.Delete(x.failures, 0, 1)
	if now-first <= failuresIn && x == l.handler && l.failing == "" {
		x.failures = nil
		l.despair("its program fails: " + why)
		if l.set.failing != nil {
			l.set.failing(l, why, failingRest)
		}
	}
}

func (p *process) statusText() string {
	ws := p.status
	switch {
	case !p.known:
		return "unknown: another process waited for it"
	case ws.Exited():
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	case ws.Signaled():
		return "ended by " + unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("status %#x", uint32(ws))
}

// despair accepts nothing for a while: it would only fail.
func (l *Listener) despair(why string) {
	l.failing = why
	l.tryAgain = l.set.loop.After(failingRest, l.cheerUp)
	l.limit()
	for _, e := range l.endpoints {
		if s, ok := e.(*packetSocket); ok {
			s.rest()
		}
	}
}

// cheerUp ends that.
func (l *Listener) cheerUp() {
	if l.failing == "" {
		return
	}
	l.set.loop.Disarm(l.tryAgain)
	l.failing, l.tryAgain = "", nil
	l.unlimit()
	riseAll(l)
}

// executes reports whether programs serve the connections.
func (l *Listener) executes() bool {
	x, ok := l.handler.(*executor)
	return ok && !x.spec.PassListener
}

// limitText says why no more is accepted.
func (l *Listener) limitText() string {
	switch {
	case l.failing != "":
		return fmt.Sprintf("%s; it is tried again within %v", l.failing, failingRest)
	case l.tunables.MaxConnections > 0 && l.active >= l.tunables.MaxConnections:
		return "max_connections is reached"
	case l.crowded():
		return "remote.max_pending is reached: no client takes the connections that wait"
	case l.isFull():
		return "exec.max_processes is reached"
	default:
		return "accept_rate is reached"
	}
}
