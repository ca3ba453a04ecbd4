package listeners

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A thread is the server of a connection that a goroutine uses by blocking
// calls: the loop's side of a view. Loop only.
type thread struct {
	plainServer
	c      *conn
	v      *view
	out    []byte // what the Write that waits has still
	took   int    // of it, by the kernel
	writes bool   // one waits
	full   bool   // the view has as much as it may
	gone   bool   // the goroutine is done with the connection, or it is closed
	left   bool   // the peer takes no more and says no more: not waited for again
	lost   error  // and a Write was told of its RST, so that no read will be
	driven bool   // by a driver, which can be told

	shaking bool     // the TLS handshake goes on
	tls     *TLSInfo // nil: there is none
	relay   *relay   // of forward: what connects to the upstream; nil: nothing
}

// thread makes a goroutine of serve, which has the connection until it returns:
// nil, or the end of what the peer sent, ends it in peace.
func (c *conn) thread(driven bool, serve func(conn net.Conn, t *thread) error) *thread {
	loop := c.l.set.loop
	v := &view{
		loop: loop, local: netAddr(c.socket().local()), remote: netAddr(Address{Network: c.network(), IP: c.source()}),
		wrote: make(chan written, 1), arrived: make(chan struct{}, 1), over: make(chan struct{}),
	}
	t := &thread{c: c, v: v, driven: driven, shaking: c.l.tls != nil}
	v.shaking = t.shaking
	v.t, v.begin, v.State = t, t.write, v.why
	c.flags |= served
	c.handler = t
	c.l.set.offLoop.Go(func() {
		err := caught(func() error { return serve(v, t) })
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			_ = v.Close()
			return
		}
		_ = loop.Post(func() { t.fail(err) }) // ended: all is closed
	})
	return t
}

// fail closes the connection because of what its goroutine says.
func (t *thread) fail(why error) {
	if p, ok := errors.AsType[*panicked](why); ok {
		t.c.l.hasPanicked(p)
	}
	if !t.gone {
		t.c.close(why)
	}
}

// write begins a Write.
func (t *thread) write() {
	t.out, t.took, t.writes = t.v.p, 0, true
	if t.gone {
		t.answer(net.ErrClosed)
		return
	}
	t.flush()
}

// flush goes on with it.
func (t *thread) flush() {
	n, err := t.c.send(t.out)
	t.took += n
	t.out = t.out[n:]
	if err != nil {
		t.c.because(reasonOf(err)) // what the peer sent before can be read still
	}
	if errors.Is(err, unix.ECONNRESET) {
		t.lost = err
	}
	if err != nil || len(t.out) == 0 {
		t.answer(err)
	}
	t.resume()
}

// withdraw ends it: its time is up.
func (t *thread) withdraw() {
	if t.writes {
		t.answer(os.ErrDeadlineExceeded)
		if !t.gone {
			t.resume()
		}
	}
}

// answer is the end of it.
func (t *thread) answer(err error) {
	t.out, t.writes = nil, false
	t.v.wrote <- written{t.took, err} // it has room: one Write at a time waits
}

func (t *thread) ready(ev mux.Events) {
	if t.c.want == mux.HangUp {
		t.hungUp()
		return
	}
	if ev&mux.Writable != 0 && t.writes {
		t.flush()
	}
	if !t.gone && ev&mux.Readable != 0 && t.c.want&mux.Readable != 0 {
		t.c.read()
	}
}

// hungUp is that the peer is gone altogether, which is all that is waited for
// while the goroutine neither reads nor writes.
func (t *thread) hungUp() {
	if errno := sockError(int(t.c.fd)); errno != 0 && errno != unix.EPIPE { // that one is of a peer that had finished
		t.lost = os.NewSyscallError("read", errno)
	}
	if t.lost != nil {
		t.c.close(t.lost)
		return
	}
	t.left = true
	if t.relay != nil {
		t.relay.clientLeft()
	}
	t.resume()
}

func (t *thread) take(p []byte, eof bool) {
	if eof && len(p) == 0 && t.lost != nil { // that is no end of what it had to say
		t.c.close(t.lost)
		return
	}
	v := t.v
	v.mu.Lock()
	v.in = append(v.in, p...)
	v.eof = v.eof || eof
	v.full = len(v.in) > 0 && (t.c.is(packets) || int64(len(v.in)) >= t.c.l.tunables.ReadBuffer)
	t.full = v.full
	v.mu.Unlock()
	v.wake()
	t.resume()
}

// drained reads on: all that was read ahead is taken.
func (t *thread) drained() {
	if !t.gone {
		t.full = false
		t.resume()
	}
}

func (t *thread) resume() {
	var want mux.Events
	if !t.full && !t.c.is(eof) {
		want |= mux.Readable
	}
	if t.writes {
		want |= mux.Writable
	}
	if want == 0 && !t.left {
		want = mux.HangUp
	}
	if t.writes || t.c.rare != nil {
		t.c.note(writing, t.writes && t.c.link() == nil, t.c.sent, len(t.out))
	}
	t.c.waitFor(want)
}

func (t *thread) retire(grace time.Duration) bool {
	if !t.driven {
		return false
	}
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	t.v.told, t.v.grace = true, grace
	t.v.wake()
	return t.v.drains
}

// finish ends the connection as its goroutine wants: all it wrote is with the
// kernel.
func (t *thread) finish() {
	if !t.gone {
		t.release()
		t.c.settle(nil, errDone)
	}
}

// release leaves what a Write has still for the loop to send.
func (t *thread) release() bool {
	t.c.queue().out = slices.Clone(t.out)
	t.leave(net.ErrClosed)
	t.c.flags &^= served
	t.c.handler = Discard{}
	if t.tls != nil {
		t.c.handler = afterTLS{info: t.tls}
	}
	return true
}

func (t *thread) closed(why error) {
	if errors.Is(why, io.EOF) {
		why = net.ErrClosed
	}
	t.leave(why)
}

// leave lets the goroutine know that it is over.
func (t *thread) leave(why error) {
	t.gone = true
	if t.relay != nil {
		t.relay.closed(why) // first, so that it is told of RST before the goroutine acts
	}
	t.v.end(why)
	if t.writes {
		t.answer(t.v.why())
	}
	close(t.v.over)
}

func (t *thread) held() (receive, send uint64) {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	return uint64(len(t.v.in) + t.v.kept), uint64(len(t.out))
}

func (t *thread) tell(st *ConnStatus) {
	if t.relay != nil {
		t.relay.tell(st)
	}
	st.TLS = t.tls
	if t.shaking {
		st.State = ConnHandshaking
	}
}

// netAddr is an address as package net has it.
func netAddr(a Address) net.Addr {
	if a.Network.ip() {
		return net.TCPAddrFromAddrPort(a.IP)
	}
	return &net.UnixAddr{Net: string(a.Network.Base()), Name: a.Path}
}
