package listeners

import (
	"encoding/json"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// moves reports whether a program can: one that ends with this process does not
// outlive it.
func (t *Transfer) moves(p *process) bool { return !p.leashed || t.stays }

// program saves a connection that a program serves; it reports whether it can
// move: not while its program is on its way.
func (t *Transfer) program(e *execConn, s *SavedHandler) bool {
	saved := &SavedExec{Why: saveError(e.why), Local: e.local, Received: e.received, Sent: e.sent}
	switch {
	case e.program != nil && t.moves(e.program):
		saved.Program = t.process(e.program)
	case e.program != nil || e.coming == nil || !t.set.starter.waits(e.coming):
		return false
	}
	at, ok := t.executor(e.x, e.c.l, saved.Program != nil)
	if !ok {
		return false
	}
	saved.Executor = at
	if e.gone.Set() {
		saved.Gone = e.gone.At()
	}
	s.Kind, s.Exec = savedExec, saved
	return true
}

// executor saves who has started a program, once, and returns its place.
func (t *Transfer) executor(x *executor, l *Listener, runs bool) (at int, ok bool) {
	at, saved := t.executors[x]
	if !saved {
		s := SavedExecutor{Listener: l.Name, Failures: x.failures}
		if x != l.handler { // the listener has another by now
			var err error
			if s.Spec, err = json.Marshal(x.spec); err == nil && x.serves != nil {
				s.Serves, err = marshalHandler(x.serves)
			}
			if err != nil {
				return 0, false
			}
		}
		at = len(t.executors)
		t.Executors = append(t.Executors, s)
		t.executors[x] = at
	}
	if p := x.stderr; runs && p != nil && !t.errors[x] {
		t.errors[x] = true
		t.Stderrs = append(t.Stderrs, SavedStderr{
			Executor: at, R: t.File(p.r), W: t.File(p.w), Partial: p.partial, Cut: p.cut, Credit: p.credit, At: p.at, Dropped: p.dropped, Told: p.told,
		})
	}
	return at, true
}

func (t *Transfer) process(p *process) *SavedProcess {
	return &SavedProcess{
		PID: p.pid, File: t.File(p.pidfd), Patience: p.patience, Began: p.began, Lived: p.lived, Deadline: p.deadline,
		Killed: p.killed, Asked: p.asked, Reaped: p.reaped, Known: p.known, Kept: p.kept, Status: uint32(p.status),
	}
}

// passing saves a program that has the sockets, if it can move.
func (t *Transfer) passing(x *executor, s *SavedListener) {
	if x.spec.PassListener && x.holder != nil && !t.moves(x.holder) {
		return
	}
	at, ok := t.executor(x, x.l, x.holder != nil)
	if !ok {
		return
	}
	s.Passing = &SavedPassing{Executor: at, Halted: x.halted, Last: x.last}
	if x.again != nil {
		s.Passing.Again = x.again.At()
	}
	if x.holder == nil {
		return
	}
	s.Passing.Holder, t.passed[x] = t.process(x.holder), true
	for i, sock := range s.Sockets {
		if slices.Contains(x.given, t.Files[sock.File]) {
			s.Passing.Given = append(s.Passing.Given, i)
		}
	}
}

// part lets go of a program that has the sockets, or is to have them. One that
// is on its way to them, or cannot move, is ended: the other process starts
// another.
func (x *executor) part(moved bool) {
	l := x.l
	switch {
	case x.holder != nil && moved:
		x.holder.leave()
		x.holder = nil
		x.left()
	case x.coming != nil && l.set.starter.withdraw(x.coming):
		closeAll(x.coming.files[3:])
		x.coming = nil
		x.left()
	case x.coming != nil || x.holder != nil:
		x.halted = true // Stop ends it
		return
	case x.again != nil:
		l.set.loop.Disarm(x.again)
		x.again = nil
	default: // there is none
	}
	l.passed = false
}

// left is over for a program that goes on in another process.
func (x *executor) left() {
	if p := x.stderr; p != nil {
		p.partial = nil // the other process has it
	}
	if x.programs--; x.programs == 0 && x.stderr != nil {
		x.stderr.leave()
		x.stderr = nil
	}
}

// leave closes what another process has.
func (p *stderrPipe) leave() {
	if p.resting.Set() {
		p.set.loop.Disarm(&p.resting)
	} else {
		_ = p.set.loop.Remove(p.r) // before the close, as always
	}
	sysClose(p.r)
	sysClose(p.w)
	p.set.used -= 2
}

// part lets go of a connection that has moved, and of its program.
func (e *execConn) part() {
	e.c.l.set.loop.Disarm(&e.gone)
	if e.program != nil {
		e.program.leave()
	} else {
		e.c.l.set.starter.withdraw(e.coming)
	}
	e.x.left()
	e.program, e.coming, e.over = nil, nil, true
}

// leave lets go of a program that has moved. If it is a child of this process
// only this one can reap it, and does.
func (p *process) leave() {
	set := p.set
	set.loop.Disarm(&p.timer)
	set.used--
	if !p.reaped {
		_ = set.loop.Remove(p.pidfd) // before the close, as always
	}
	if p.child && !p.reaped {
		set.orphans[p.pidfd] = p.pid
		if set.loop.Add(p.pidfd, mux.Readable, &orphan{set, p.pid, p.pidfd, p.leashed}) == nil { // it was there just now
			if !p.leashed {
				set.starter.ended()
			}
			return
		}
	}
	sysClose(p.pidfd)
}

// An orphan is a program that another process goes on with, and that this one has
// to reap.
type orphan struct {
	set        *Set
	pid, pidfd int
	leashed    bool
}

// Ready is that it has ended.
func (o *orphan) Ready(mux.Events) {
	pid, err := unix.Wait4(o.pid, nil, unix.WNOHANG, nil)
	if err == nil && pid == 0 {
		return // not yet
	}
	_ = o.set.loop.Remove(o.pidfd) // before the close, as always
	sysClose(o.pidfd)
	delete(o.set.orphans, o.pidfd)
	if o.leashed {
		o.set.starter.ended()
	}
}
