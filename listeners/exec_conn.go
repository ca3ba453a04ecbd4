package listeners

import (
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// An execConn is the Handler of one connection that a program serves. The
// daemon keeps a descriptor of it, from which it reads nothing, so that it can
// tell, tune and reset the connection. It lives as long as the program does.
// Loop only.
type execConn struct {
	plainServer
	x        *executor
	c        *conn
	coming   *launch  // of the program; nil: it is there, or has ended
	program  *process // nil: it is being started, or has ended
	over     bool     // it has ended
	why      error    // the connection shall be closed because of
	gone     mux.Timer
	local    Address // once it was reset: the kernel has forgotten
	received uint64  // as counted in the listener's stats
	sent     uint64
}

// Open has a program started.
func (x *executor) Open(p Peer) (Handler, error) {
	c := p.(*conn)
	// Programs know nothing of sockets that do not block. The flag is the
	// connection's, not the descriptor's; nothing is read or written here.
	if err := unix.SetNonblock(int(c.fd), false); err != nil {
		return nil, err
	}
	c.want = mux.HangUp
	if err := c.l.set.loop.Modify(int(c.fd), c.want); err != nil {
		return nil, err
	}
	e := &execConn{x: x, c: c}
	if err := e.start(); err != nil {
		return nil, err
	}
	c.flags |= served
	return e, nil
}

// start has the program started.
func (e *execConn) start() (err error) {
	c := e.c
	env := connEnvironment(c)
	if e.x.serves != nil {
		text, err := servantFor(e.x.serves, c)
		if err != nil {
			return err
		}
		env[servantEnv] = text
	}
	if e.coming, err = e.x.launch(c.l.set, c.l, int(c.fd), int(c.fd), nil, env, e.started); err != nil {
		e.x.failed(c.l, err.Error())
	}
	return err
}

func (e *execConn) started(r started) {
	e.coming = nil
	if r.err == nil {
		e.program, r.err = e.c.l.set.adopt(r, e.x.spec.killTimeout(), e.ended)
	}
	switch {
	case r.err != nil:
		e.over = true
		e.x.failed(e.c.l, r.err.Error())
		e.x.over()
		e.c.close(r.err)
	case e.why != nil:
		e.program.end()
	}
}

func (e *execConn) ended() {
	p := e.program
	e.program, e.over = nil, true
	e.measure()
	e.x.judge(e.c.l, p, e.c.is(eof)) // a client that goes away early makes many a program fail
	e.x.over()
	if e.why == nil {
		e.c.becauseDone()
		e.why = io.EOF
	}
	e.c.close(e.why)
}

// ready is told of a connection that is over: reset, or finished on both sides.
// The program has time to notice, and to do what it has to do still.
func (e *execConn) ready(mux.Events) {
	e.c.want = 0 // it would be reported for ever
	_ = e.c.l.set.loop.Modify(int(e.c.fd), 0)
	e.c.l.set.loop.Arm(&e.gone, e.c.l.set.loop.Clock()+e.x.spec.killTimeout(), e)
}

// Expired ends a program whose client has been gone for a while.
func (e *execConn) Expired() { e.c.close(unix.ECONNRESET) }

// letGo is asked before the connection is closed: its program ends first.
func (e *execConn) letGo(why error) bool {
	if e.over {
		e.c.l.set.loop.Disarm(&e.gone)
		return true
	}
	if e.why == nil {
		e.why = why
		e.c.because(reasonOf(why))
	}
	if e.program != nil {
		e.program.end()
	}
	return false
}

// reset sends RST at once, whoever else has the connection: connect(2) to
// nowhere undoes it.
func (e *execConn) reset() {
	e.measure()
	e.local = e.c.socket().local()
	if e.c.family == unix.AF_UNIX {
		_ = unix.Shutdown(int(e.c.fd), unix.SHUT_RDWR)
		return
	}
	nowhere := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, _ = unix.RawSyscall(unix.SYS_CONNECT, uintptr(e.c.fd), uintptr(unsafe.Pointer(&nowhere)), unsafe.Sizeof(nowhere))
}

// pid is the program's, 0 while it is being started.
func (e *execConn) pid() int {
	if e.program == nil {
		return 0
	}
	return e.program.pid
}

// tell adds what a connection of the loop's own has not.
func (e *execConn) tell(st *ConnStatus) {
	e.measure()
	st.Received, st.Sent, st.Active = e.c.received, e.c.sent, e.c.l.set.loop.Time(e.c.active)
	st.Program = e.pid()
	if e.local != (Address{}) {
		st.Local = e.local
	}
	switch {
	case e.why != nil:
		st.State = ConnClosing
	case e.c.is(eof):
		st.State = ConnHalfClosed
	}
}

// measure asks the kernel what has moved, since the daemon does not see it. Of
// Unix sockets it does not tell.
func (e *execConn) measure() {
	c := e.c
	if e.clientEnded() {
		c.flags |= eof
	}
	info := c.tcpInfo()
	if info == nil {
		return
	}
	received, sent := info.Bytes_received, info.Bytes_sent-info.Bytes_retrans+uint64(info.Notsent_bytes)
	switch info.State {
	case unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING:
		received-- // FIN counts as a byte
	}
	idle := time.Duration(min(info.Last_data_sent, info.Last_data_recv)) * time.Millisecond
	c.active = max(c.active, c.l.set.loop.Clock()-idle)
	if c.received == 0 && received > 0 {
		c.begun()
	}
	c.received, c.sent = max(c.received, received), max(c.sent, sent)
	c.l.stats.Received += c.received - e.received
	c.l.stats.Sent += c.sent - e.sent
	c.l.stir()
	e.received, e.sent = c.received, c.sent
}

// clientEnded reports whether the client has finished sending, or is gone.
func (e *execConn) clientEnded() bool {
	fds := []unix.PollFd{{Fd: e.c.fd, Events: unix.POLLRDHUP}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents != 0
}

// touch measures. Of Unix sockets it cannot be told.
func (e *execConn) touch() {
	if e.c.family == unix.AF_UNIX {
		e.c.active = e.c.l.set.loop.Clock()
	}
	e.measure()
}

func (e *execConn) leaving() bool { return e.why != nil }
