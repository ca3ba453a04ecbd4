package listeners

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A program with pass_listener accepts by itself:
//
//	               a socket is readable              the program is there
//	sockets watched ------------------> being started -------------------> running
//	       ^                                 | failed                         | ended
//	       +---------------------------------+--------------------------------+
//
// As long as it has the sockets the loop does not look at them.

// leastBetween is the time between two starts, so that a program that ends
// without having taken what waits does not take the machine.
const leastBetween = 100 * time.Millisecond

// passer is the executor that hands the sockets themselves on; nil: the
// listener accepts.
func (l *Listener) passer() *executor {
	if x, ok := l.handler.(*executor); ok && x.spec.PassListener {
		return x
	}
	return nil
}

// pass hands the sockets on. It is called when one of them is readable.
func (x *executor) pass() {
	l := x.l
	if l.passed { // one was added meanwhile
		restAll(l)
		return
	}
	if l.failing != "" {
		l.limit()
		return
	}
	l.passed = true
	restAll(l)
	now := l.set.loop.Clock()
	if wait := x.last + leastBetween - now; x.last != 0 && wait > 0 {
		x.again = l.set.loop.After(wait, func() { x.again = nil; x.takeBack(l) })
		x.last = 0
		return
	}
	x.last, x.halted, x.given = now, false, nil
	files, err := x.duplicate()
	if err == nil {
		env := map[string]string{
			"LISTEN_FDS":       strconv.Itoa(len(files)),
			"LISTEN_FDNAMES":   strings.Repeat(":"+l.Name, len(files))[1:],
			"SOCKMGR_LISTENER": l.Name,
		}
		x.coming, err = x.launch(l.set, l, -1, -1, files, env, func(r started) {
			closeAll(files)
			x.passedOn(l, r)
		})
	}
	if err != nil {
		closeAll(files)
		x.failed(l, err.Error())
		x.takeBack(l)
	}
}

// duplicate makes descriptors for the program, since the sockets may be closed
// before it is there. They block, as programs expect; nobody accepts here.
func (x *executor) duplicate() (files []int, err error) {
	for _, e := range x.l.endpoints {
		s := e.sock()
		if s.fd < 0 || s.shut {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return files, err
		}
		files, s.lent = append(files, fd), true
		x.given = append(x.given, s.fd)
		if err := unix.SetNonblock(fd, false); err != nil {
			return files, err
		}
	}
	return files, nil
}

func closeAll(files []int) {
	for _, fd := range files {
		sysClose(fd)
	}
}

func (x *executor) passedOn(l *Listener, r started) {
	x.coming = nil
	if r.err == nil {
		x.holder, r.err = l.set.adopt(r, x.spec.killTimeout(), func() { x.holderEnded(l) })
	}
	switch {
	case r.err != nil:
		x.failed(l, r.err.Error())
		x.over()
		x.takeBack(l)
	case x.halted:
		x.holder.end()
	default:
		l.set.log.Info("program has the sockets", "listener", l.Name, "pid", r.pid)
	}
}

func (x *executor) holderEnded(l *Listener) {
	p := x.holder
	x.holder = nil
	x.judge(l, p, false)
	x.over()
	x.takeBack(l)
}

// takeBack watches the sockets again.
func (x *executor) takeBack(l *Listener) {
	l.passed = false
	for _, e := range slices.Concat(l.endpoints, l.leaving) {
		if s := e.sock(); s.fd >= 0 {
			_ = unix.SetNonblock(s.fd, true) // nothing keeps it from that
		}
	}
	if l.failing == "" {
		riseAll(l)
	}
	l.ended()
}

// halt ends the program that has the sockets. When it has, they are watched
// again, unless they are closed or their listener is paused.
func (x *executor) halt() {
	x.halted = true
	if x.holder != nil {
		x.holder.end()
	}
	if x.again != nil {
		x.l.set.loop.Disarm(x.again)
		x.again = nil
		x.takeBack(x.l)
	}
}

// refresh ends the program if the sockets are not those any more that it was
// given.
func (x *executor) refresh() {
	if !x.l.passed || x.given == nil {
		return
	}
	for _, e := range x.l.endpoints {
		if !slices.Contains(x.given, e.sock().fd) {
			x.halt()
			return
		}
	}
	if len(x.given) != len(x.l.endpoints) {
		x.halt()
	}
}

// A sleeper is an endpoint that can be off the loop.
type sleeper interface {
	rest()
	rise()
}

func restAll(l *Listener) {
	for _, e := range l.endpoints {
		e.(sleeper).rest()
	}
}

func riseAll(l *Listener) {
	for _, e := range l.endpoints {
		e.(sleeper).rise()
	}
}
