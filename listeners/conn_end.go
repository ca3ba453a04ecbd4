package listeners

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

const (
	lingerBytes = 64 << 10        // of input that is dropped after the last write (RFC 9112, 9.6)
	lingerTime  = 2 * time.Second // at most, for that
)

// Why a connection was closed, beside io.EOF and what the kernel said.
var (
	errIdle            = errors.New("idle_timeout")
	errDrained         = errors.New("drained")
	errClosedByRequest = errors.New("closed by request")
	errMessageSize     = errors.New("message is longer than read_buffer_bytes")
	errFault           = errors.New("fault")
	errStuck           = errors.New("handler cannot take more input")
)

// linger ends a connection on which all has been written: FIN now, and the
// close once the peer has had time to read. A close with unread input would
// send RST, which can destroy what was just written. With SO_LINGER at 0
// seconds the close shall do that.
func (c *conn) linger() {
	sec, on := c.soLinger()
	if k := c.link(); k != nil && (!on || sec > 0) {
		k.linger()
		return
	}
	if c.is(eof) || c.is(packets) || on && sec == 0 {
		c.close(io.EOF)
		return
	}
	_ = unix.Shutdown(int(c.fd), unix.SHUT_WR) // ENOTCONN: it is over, the read will tell
	c.flags |= lingering
	c.queue().tolerated = c.received + lingerBytes
	c.deadline = c.l.set.loop.Clock() + lingerTime
	c.waitFor(mux.Readable)
}

// closeWrite tells the peer that nothing follows, and keeps the connection.
func (c *conn) closeWrite() {
	if k := c.link(); k != nil {
		k.finish()
		return
	}
	_ = unix.Shutdown(int(c.fd), unix.SHUT_WR) // ENOTCONN: the peer has reset
}

// lingered ends a connection that lingers, now that its peer has finished.
func (c *conn) lingered() {
	if k := c.link(); k != nil && !k.out.over {
		c.waitFor(0) // our own end is on its way still
		return
	}
	c.close(io.EOF)
}

// drain lets the handler end a connection that is at rest, and tells it to end
// one that is not as soon as it can. A connection is not at rest if the kernel
// has input of it, or if it waited to be accepted until now.
func (c *conn) drain() {
	_ = c.retire(c.l.drain.from, c.l.drain.until.Sub(c.l.set.loop.Now())) // if it cannot, it is closed when the time is up
}

// retire is drain; connections that were accepted later than before are not at
// rest. Streams that are have a part of the time that is left, so that they end
// by themselves. It reports whether the handler knows how to.
func (c *conn) retire(before, left time.Duration) bool {
	d, ok := c.handler.(Drainer)
	switch {
	case c.is(done | told):
		return true
	case c.is(served):
		grace := min(drainGrace, left*3/4)
		if c.opened >= before {
			grace = 0
		}
		if !c.server().retire(grace) {
			return false
		}
		c.flags |= told
		return true
	case !ok:
		return false
	}
	c.flags |= told
	if c.comesToRest(d) && !c.Pending() && len(c.input()) == 0 && c.unread() == 0 && c.opened < before {
		r, ok := d.(Rester)
		if !ok {
			c.settle(nil, errDone)
			return true
		}
		c.restFor(r, min(drainGrace, left*3/4))
	}
	if c.fd >= 0 {
		c.arm() // it may have set a deadline
	}
	return true
}

// drained ends what has not ended by itself.
func (c *conn) drained() {
	c.l.drain.cut++ // of a shard: see depart
	if c.l.spec.Drain.Reset {
		c.reset(errDrained)
		return
	}
	c.close(errDrained)
}

// finish closes, but sends first what the peer takes within lingerTime. A close
// with unread input would keep the peer from what it has been sent.
func (c *conn) finish(why error) {
	if c.is(done) {
		return
	}
	if c.is(served) && !c.server().release() || !c.Pending() && c.unread() == 0 && !c.isHeld() {
		c.close(why)
		return
	}
	c.because(reasonOf(why))
	c.settle(nil, errDone)
	if c.fd >= 0 {
		c.deadline = c.l.set.loop.Clock() + lingerTime
		c.arm()
	}
}

// reset closes with RST.
func (c *conn) reset(why error) {
	if c.is(served) {
		c.server().reset()
	}
	_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	c.flags &^= lingers // 0 seconds do not wait
	c.close(why)
}

// close is idempotent: a handler, a write error and a drain may all ask. Only
// the first tells why.
func (c *conn) close(why error) {
	if c.fd < 0 {
		return
	}
	if c.is(served) && !c.server().letGo(why) {
		return
	}
	d := c.durable()
	if d != nil {
		d.die()
	}
	l, reason := c.l, c.endedBy(why)
	if w := l.set.watcher; w != nil {
		w.ConnClosed(c.lastStatus(why))
	}
	if c.is(served) {
		c.server().closed(why)
	}
	c.stopLinger()
	_ = l.set.loop.Remove(int(c.fd)) // before the close, as always
	l.set.loop.Disarm(&c.timer)
	c.counted(reason)
	if d != nil {
		d.release(int(c.fd))
	}
	if l.whole != nil {
		c.depart(why) // before the close: who sees that may ask at once
	}
	sysClose(int(c.fd))
	c.fd = -1
	c.queues = nil
	c.forgetOutput()
	if c.rare != nil {
		c.leaveOrigin()
		if c.rare.link != nil {
			c.rare.link.drop()
		}
		if c.rare.pace != nil {
			c.rare.pace.drop()
		}
	}
	if l.set.log.IsTrace() {
		l.set.log.Trace("connection closed", "listener", l.Name, "remote", c.remote, "reason", reason, "error", why)
	}
	if l.whole != nil {
		return // the rest is done on the first loop
	}
	l.active--
	l.set.open--
	l.set.released()
	l.unlimit()
	l.ended()
}

// stopLinger keeps close(2) from waiting: with SO_LINGER above zero it does,
// also on a non-blocking socket.
func (c *conn) stopLinger() {
	if sec, on := c.soLinger(); on && sec > 0 {
		_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
}

// soLinger reads SO_LINGER where that may be on.
func (c *conn) soLinger() (seconds int32, on bool) {
	if !c.is(lingers) {
		return 0, false
	}
	seconds, on, err := sockLinger(int(c.fd))
	return seconds, on && err == nil
}
