package listeners

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

const minRead = 1 << 10 // room for a read beside what is kept

// What a connection is sent before others have their turn; the answer that goes
// beyond it is sent as a whole. The kernel may take MiB of many small ones.
const (
	turnBytes  = 256 << 10
	turnWrites = 64
)

// A conn is one accepted connection. Loop only. There may be a million of
// them: what is not always needed is behind a pointer.
type conn struct {
	l       *Listener
	handler Handler
	fd      int32 // -1 once closed
	family  uint8
	ending  CloseReason // once it is about to
	want    mux.Events
	flags   connFlags
	remote  netip.AddrPort
	timer   mux.Timer

	opened   time.Duration // on the loop's clock, as all times here
	active   time.Duration // when a byte last moved
	deadline time.Duration // the handler's, or of lingering; 0: none

	received, sent uint64
	reads, writes  uint32 // wrap

	queues *queues // nil: nothing is queued
	rare   *rare   // nil: there is nothing of it
}

type connFlags uint8

const (
	eof       connFlags = 1 << iota // the peer has finished sending
	done                            // the handler has: close once all is written
	lingering                       // all is written: drop input until the peer closes
	packets                         // keeps message boundaries
	told                            // of the drain: see drain
	lingers                         // SO_LINGER may be on: see stopLinger
	feeds                           // its handler is a Feeder
	served                          // its handler is a server, which does all
)

func (c *conn) is(f connFlags) bool { return c.flags&f != 0 }

// Ready is told by the loop.
func (c *conn) Ready(ev mux.Events) {
	if k := c.link(); k != nil {
		k.ready(ev)
		return
	}
	c.serve(ev)
}

// serve writes before it reads: a peer that does not drain gets no new work.
func (c *conn) serve(ev mux.Events) {
	if c.is(served) {
		c.server().ready(ev)
		return
	}
	switch {
	case ev&mux.Writable == 0:
	case c.Pending():
		if err := c.flush(); err != nil {
			c.close(err)
			return
		}
		if c.pending() > 0 {
			c.noteOutput()
			c.waitFor(mux.Writable) // not now, perhaps: see pace
		} else {
			c.proceed(c.input())
		}
	case c.is(feeds) && !c.is(done):
		c.settle(c.input(), c.feed(c.handler.(Feeder)))
	}
	if c.fd >= 0 && ev&mux.Readable != 0 && c.want&mux.Readable != 0 {
		c.read()
	}
}

// read reads once: what is left is reported again.
func (c *conn) read() {
	var buf []byte
	kept := 0
	d := c.durable()
	if d != nil && c.is(lingering) {
		d = nil // what comes is dropped
	}
	if d != nil {
		if buf = d.room(c); len(buf) == 0 {
			c.close(errStuck)
			return
		}
	} else {
		limit := max(c.l.tunables.ReadBuffer, int64(len(c.input())+minRead)) // it may have been tuned down
		if c.l.isPressed() && !c.is(packets) {
			limit = min(limit, int64(len(c.input())+pressedBytes))
		}
		c.l.set.growBuffer(limit)
		buf = c.l.set.buf[:limit]
		kept = copy(buf, c.input())
	}
	room := c.room(reading)
	if room == 0 {
		c.resume()
		return
	}
	if !c.is(packets) { // a message is read as a whole
		buf = buf[:kept+min(room, len(buf)-kept)]
	}
	n, errno := c.recv(buf[kept:])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0:
		c.l.stats.failed("read", errno)
		c.close(os.NewSyscallError("read", errno))
		return
	case n > len(buf)-kept: // only of a packet
		c.close(errMessageSize)
		return
	case n == 0 && c.is(packets) && !c.ended():
		c.active = c.l.set.loop.Clock() // an empty message, of which nobody makes anything
		return
	case n == 0:
		c.flags |= eof
		if c.is(lingering) {
			c.lingered()
			return
		}
		c.proceed(c.input())
		return
	}
	c.gotBytes(n)
	if c.is(lingering) {
		if c.received > c.queues.tolerated {
			c.close(io.EOF)
		}
		return
	}
	if d != nil {
		c.proceed(d.unused(c))
		return
	}
	c.proceed(buf[:kept+n])
}

// gotBytes counts a read.
func (c *conn) gotBytes(n int) {
	if c.link() == nil {
		c.countReceived(n)
	}
	c.moved(reading, n)
}

// countReceived counts what the kernel gave.
func (c *conn) countReceived(n int) {
	if c.received == 0 {
		c.begun()
	}
	c.active = c.l.set.loop.Clock()
	c.received += uint64(n)
	c.reads++
	c.l.stats.Received += uint64(n)
	c.l.stir()
}

// sentBytes counts a write.
func (c *conn) sentBytes(n int) {
	c.countSent(n)
	c.moved(writing, n)
}

// countSent counts what the kernel took.
func (c *conn) countSent(n int) {
	c.active = c.l.set.loop.Clock()
	c.sent += uint64(n)
	c.writes++
	c.l.stats.Sent += uint64(n)
	c.l.stir()
}

// ended tells the end of a packet connection from an empty message.
func (c *conn) ended() bool {
	fds := []unix.PollFd{{Fd: c.fd, Events: unix.POLLRDHUP}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents != 0 && c.unread() == 0
}

func (c *conn) recv(p []byte) (int, unix.Errno) {
	if k := c.link(); k != nil {
		return k.recv(p)
	}
	if c.is(packets) {
		return sysRecv(int(c.fd), p, unix.MSG_TRUNC) // tells the real length
	}
	return sysRecv(int(c.fd), p, 0)
}

// proceed offers p to the handler for as long as it gets on, and goes by what
// it says. What it has no more time for in this turn waits for the next.
func (c *conn) proceed(p []byte) {
	var err error
	if c.is(served) {
		c.server().take(p, c.is(eof))
		return
	}
	if !c.is(done) {
		c.yield(false)
		sent, writes := c.sent, c.writes
		for len(p) > 0 && err == nil && !c.Pending() {
			if c.sent-sent >= turnBytes || c.writes-writes >= turnWrites {
				c.yield(true)
				break
			}
			var n int
			before := c.handler
			if n, err = c.handle(p); n == 0 && c.handler == before || c.fd < 0 {
				break
			}
			p = p[n:]
			if c.is(served) {
				c.keep(nil)
				c.server().take(p, c.is(eof))
				return
			}
		}
	}
	c.settle(p, err)
}

// settle keeps what was not consumed and decides what to wait for.
func (c *conn) settle(rest []byte, err error) {
	switch {
	case c.fd < 0 || c.is(served) || c.want == 0 && err == nil: // or it rests
		return
	case errors.Is(err, errDone) || err == nil && c.is(eof) && !c.Pending():
		c.becauseDone()
		c.flags |= done
		c.deadline = 0 // it was the handler's
	case err != nil:
		c.close(err)
		return
	}
	if d := c.durable(); d != nil && !d.commit(c, len(rest)) {
		return
	}
	switch {
	case c.is(done) || len(rest) == 0:
		c.keep(nil)
	case int64(len(rest)) >= c.l.tunables.ReadBuffer && !c.Pending():
		c.close(errStuck)
		return
	default:
		c.keep(rest)
	}
	if c.rare != nil || c.wantsToWrite() {
		c.noteOutput()
	}
	if c.is(done) && !c.Pending() {
		c.linger()
	} else {
		c.waitFor(c.interest())
	}
	if c.fd >= 0 && c.deadline != 0 {
		c.arm()
	}
}

// interest is what a connection waits for.
func (c *conn) interest() mux.Events {
	switch {
	case c.Pending():
		return mux.Writable // and so read no more: back-pressure
	case c.is(feeds) && !c.is(done):
		return mux.Readable | mux.Writable
	default:
		return mux.Readable
	}
}

// rest waits for nothing until someone else has the loop wait again.
func (c *conn) rest() {
	if c.isPaced() {
		c.rare.pace.drop()
	}
	_ = c.watch(0) // it is there, and taking it from a poller does not fail
}

func (c *conn) waitFor(want mux.Events) {
	if c.rare != nil {
		want = c.unmasked(want)
	}
	if err := c.watch(want); err != nil {
		c.close(err)
	}
}

// watch makes the loop wait for something else.
func (c *conn) watch(want mux.Events) error {
	if k := c.link(); k != nil {
		c.want = want
		return k.rearm()
	}
	return change(c.l.set.loop, int(c.fd), &c.want, want)
}

// unread is how much the kernel, or a link, has for us.
func (c *conn) unread() uint64 {
	n, _ := c.socket().bytes()
	if k := c.link(); k != nil {
		n += uint64(len(k.in.data))
	}
	return n
}

// socket is the connection as options see one.
func (c *conn) socket() *socket {
	return &socket{fd: int(c.fd), family: int(c.family), addr: Address{Network: c.network()}}
}

func (c *conn) network() Network {
	switch {
	case c.family != unix.AF_UNIX:
		return TCP
	case c.is(packets):
		return Unixpacket
	default:
		return Unix
	}
}
