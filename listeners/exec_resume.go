package listeners

import (
	"encoding/json"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// executor is who had started programs in the process before.
func (r *Resumption) executor(at int) (*executor, error) {
	if at < 0 || at >= len(r.starters) {
		return nil, fmt.Errorf("executor %d is missing", at)
	}
	if x := r.executors[at]; x != nil {
		return x, nil
	}
	s := &r.starters[at]
	l := r.Listeners[s.Listener]
	if l == nil {
		return nil, fmt.Errorf("a program of listener %q came without it", s.Listener)
	}
	x, err := s.executor(l)
	if err != nil {
		return nil, err
	}
	x.failures = s.Failures
	r.executors[at] = x
	return x, nil
}

func (s *SavedExecutor) executor(l *Listener) (*executor, error) {
	if len(s.Spec) == 0 {
		x, ok := l.handler.(*executor)
		if !ok {
			return nil, fmt.Errorf("a program came, and the handler is %s", l.spec.Handler.Kind())
		}
		return x, nil
	}
	x := &executor{l: l, spec: &Exec{}}
	if err := json.Unmarshal(s.Spec, x.spec); err != nil {
		return nil, err
	}
	if len(s.Serves) > 0 {
		var err error
		if x.serves, err = unmarshalHandler(s.Serves); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// stderr goes on with what programs write there that come in the same part.
func (r *Resumption) stderr(s *SavedStderr) error {
	x, err := r.executor(s.Executor)
	if err != nil {
		return err
	}
	out, err := r.File(s.R)
	if err != nil {
		return err
	}
	in, err := r.File(s.W)
	if err != nil {
		return err
	}
	p := &stderrPipe{
		set: r.set, name: x.l.Name, r: out, w: in, partial: s.Partial, cut: s.Cut, credit: s.Credit, at: s.At, dropped: s.Dropped, told: s.Told,
	}
	if err := r.set.loop.Add(p.r, mux.Readable, p); err != nil {
		return attachFault(x.l.Name, err)
	}
	r.set.used += 2
	x.stderr = p
	return nil
}

// process goes on with a program, which is not a child of this process.
func (r *Resumption) process(s *SavedProcess, x *executor, ended func()) (*process, error) {
	fd, err := r.File(s.File)
	if err != nil {
		return nil, err
	}
	p := &process{
		set: r.set, pid: s.PID, pidfd: fd, patience: s.Patience, began: s.Began, lived: s.Lived, deadline: s.Deadline,
		killed: s.Killed, asked: s.Asked, reaped: s.Reaped, known: s.Known, kept: s.Kept, status: unix.WaitStatus(s.Status), ended: ended,
	}
	if !p.reaped {
		if err := r.set.loop.Add(fd, mux.Readable, p); err != nil {
			return nil, err
		}
	}
	r.set.used++
	x.programs++
	switch {
	case p.reaped:
		r.set.loop.Arm(&p.timer, 0, p)
	case p.deadline != 0 && !p.killed:
		r.set.loop.Arm(&p.timer, p.deadline, p)
	}
	return p, nil
}

// program goes on with a connection that one serves, or is to.
func (r *Resumption) program(c *conn, s *SavedExec) error {
	x, err := r.executor(s.Executor)
	if err != nil {
		return err
	}
	e := &execConn{x: x, c: c, why: s.Why.error(), local: s.Local, received: s.Received, sent: s.Sent}
	c.flags |= served
	c.handler = e
	if s.Program == nil {
		r.set.loop.After(0, e.startLate)
	} else if e.program, err = r.process(s.Program, x, e.ended); err != nil {
		return err
	}
	if s.Gone > 0 {
		r.set.loop.Arm(&e.gone, s.Gone, e)
		return nil
	}
	return c.watch(mux.HangUp)
}

// startLate starts the program of a connection that came without one.
func (e *execConn) startLate() {
	if err := e.start(); err != nil {
		e.over = true
		e.c.close(err)
	}
}

// passing goes on with a program that has the sockets of a listener.
func (r *Resumption) passing(l *Listener, s *SavedPassing, sockets []endpoint) error {
	x, err := r.executor(s.Executor)
	if err != nil {
		return err
	}
	x.halted, x.last = s.Halted, s.Last
	if s.Again > 0 {
		l.passed = true
		x.again = r.set.loop.After(max(0, s.Again-r.set.loop.Clock()), func() { x.again = nil; x.takeBack(l) })
	}
	if s.Holder == nil {
		return nil
	}
	l.passed = true
	for _, i := range s.Given {
		if i >= 0 && i < len(sockets) {
			x.given = append(x.given, sockets[i].sock().fd)
		}
	}
	x.holder, err = r.process(s.Holder, x, func() { x.holderEnded(l) })
	return err
}
