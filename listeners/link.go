package listeners

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A link stands between a connection that faults have hit and its socket, and
// is to it what the kernel is to others: it has bytes to be read, or not yet,
// and takes what is written, or no more for now. It never waits: the loop's
// timers give back what it holds. Loop only.
//
//	client --> socket --> in  --> conn or relay
//	client <-- socket <-- out <-- conn or relay
type link struct {
	c      *conn
	f      Faults
	began  time.Duration // what close_after and reset_after count from
	in     line
	out    line
	kernel mux.Events // what the loop waits for; c.want is what the connection does
	fate   end
	busy   bool // in ready, which sees to all at its end
	gone   bool // the faults are off: it is taken out once it is empty
	over   bool // a fault has ended the connection: none follows
	timer  mux.Timer
}

// linkPieces is how many pieces one turn gives to the kernel.
const linkPieces = 32

// ready moves what may move now. ev is of the kernel.
func (k *link) ready(ev mux.Events) {
	c := k.c
	k.busy = true
	if k.kernel == mux.HangUp && ev != 0 && c.want == mux.HangUp {
		c.serve(ev)
		ev = 0
	}
	if ev&mux.Writable != 0 {
		k.push()
	}
	if c.fd >= 0 && ev&mux.Readable != 0 {
		k.pull()
	}
	if c.fd >= 0 {
		if ev := k.offers() & c.want; ev != 0 {
			c.serve(ev)
		}
	}
	if c.fd >= 0 {
		k.push() // what that wrote, if it is not held
	}
	if c.fd >= 0 {
		k.checkEnd()
	}
	k.busy = false
	if c.fd < 0 {
		return
	}
	if k.gone && k.isEmpty() {
		k.leave()
		return
	}
	if err := k.rearm(); err != nil {
		c.close(err)
	}
}

// Expired is something of it being due.
func (k *link) Expired() { k.ready(0) }

// offers is what the connection would be told by a kernel.
func (k *link) offers() (ev mux.Events) {
	now := k.now()
	if k.in.errno != 0 || k.in.due(now) > 0 || k.in.isAtEnd(now) {
		ev |= mux.Readable
	}
	if !k.gone && len(k.out.data) <= k.most()/2 { // as the kernel does, lest it be byte by byte
		ev |= mux.Writable
	}
	return ev
}

// rearm waits for what can move something.
func (k *link) rearm() error {
	if k.busy {
		return nil
	}
	c, now := k.c, k.now()
	var want mux.Events
	if c.want&mux.Readable != 0 && k.takesInput() {
		want |= mux.Readable
	}
	if k.out.due(now) > 0 {
		want |= mux.Writable
	}
	if want == 0 && c.want == mux.HangUp && !k.in.cut {
		want = mux.HangUp
	}
	var at time.Duration
	switch {
	case k.offers()&c.want != 0 || k.fate != noEnd || k.gone && k.isEmpty() || k.out.isAtEnd(now) && !k.out.over:
		at = now
	case c.want&mux.Readable != 0:
		at = k.in.next(now)
	}
	at = earlier(at, k.out.next(now))
	if !k.over {
		at = earlier(at, k.timeLimit())
	}
	loop := c.l.set.loop
	if at == 0 {
		loop.Disarm(&k.timer)
	} else {
		loop.Arm(&k.timer, at, k)
	}
	return change(loop, int(c.fd), &k.kernel, want)
}

func (k *link) now() time.Duration { return k.c.l.set.loop.Clock() }

// most is how many bytes it holds each way.
func (k *link) most() int { return int(k.c.l.tunables.WriteBuffer) }

func (k *link) isEmpty() bool {
	return len(k.in.data) == 0 && len(k.out.data) == 0 && (!k.out.ended || k.out.over) && k.in.errno == 0
}

// isHeld reports whether a link has something for the peer still.
func (c *conn) isHeld() bool {
	k := c.link()
	return k != nil && len(k.out.data) > 0
}

// rate is that of the faults.
func (k *link) rate(d direction) rate {
	if !k.f.strike(d) {
		return 0
	}
	return rate(k.f.Rate)
}

func (k *link) takesInput() bool {
	return !k.gone && !k.in.ended && k.in.errno == 0 && !k.in.cut && len(k.in.data) < k.most()
}

// pull reads from the kernel what is held then.
func (k *link) pull() {
	if !k.takesInput() {
		return
	}
	buf := k.c.l.set.buf
	buf = buf[:min(len(buf), k.most()-len(k.in.data))]
	switch n, errno := sysRecv(int(k.c.fd), buf, 0); {
	case errno == unix.EAGAIN || errno == unix.EINTR:
	case errno != 0:
		k.in.errno = errno // which drops what came before, as the kernel does
	case n == 0:
		k.in.finish(k.now() + k.f.held(reading) + k.slowClose(reading))
	default:
		k.c.countReceived(n)
		k.in.put(buf[:n], k.now()+k.f.held(reading))
	}
}

// recv is recv(2) of what is due.
func (k *link) recv(p []byte) (int, unix.Errno) {
	now := k.now()
	n := min(len(p), k.in.due(now))
	switch {
	case k.in.errno != 0:
		return 0, k.in.errno
	case n > 0:
		copy(p, k.in.data[:n])
		k.in.moved(n, now)
		k.count(&k.in, reading)
		return n, 0
	case k.in.isAtEnd(now):
		return 0, 0
	}
	return 0, unix.EAGAIN
}

// send is send(2) to be held; what it returns is less when it holds enough.
func (k *link) send(p []byte) int {
	n := min(len(p), max(k.most()-len(k.out.data), 0))
	if n == 0 || k.gone {
		return 0 // the kernel takes it, as soon as what is held is gone
	}
	k.out.put(p[:n], k.now()+k.f.held(writing))
	k.c.moved(writing, n)
	k.stir()
	return n
}

// stir has what was put into it seen to.
func (k *link) stir() {
	if err := k.rearm(); err != nil {
		k.fate = resetIt // nobody would tell when it can go on
		k.c.l.set.loop.Arm(&k.timer, k.now(), k)
	}
}

// push gives the kernel what is due.
func (k *link) push() {
	c := k.c
	for range linkPieces {
		now := k.now()
		n := k.out.due(now)
		if n == 0 {
			break
		}
		sent, errno := sysSend(int(c.fd), k.out.data[:n])
		if isLater(errno) {
			return
		}
		if errno != 0 {
			k.broken(errno)
			return
		}
		c.countSent(sent)
		k.out.moved(sent, now)
		k.count(&k.out, writing)
	}
	if k.out.isAtEnd(k.now()) && !k.out.over {
		k.pass()
	}
}

// broken is that the peer takes no more.
func (k *link) broken(errno unix.Errno) {
	c := k.c
	k.out.clear()
	if r := c.relay(); r != nil {
		r.back.refuse(errno)
		r.settle()
		return
	}
	c.l.stats.failed("write", errno)
	c.close(os.NewSyscallError("write", errno))
}

// pass tells the peer that nothing follows.
func (k *link) pass() {
	c := k.c
	k.out.over = true
	if r := c.relay(); r != nil {
		_ = unix.Shutdown(int(c.fd), unix.SHUT_WR) // ENOTCONN: it is over, the read will tell
		r.back.shut = true
		r.settle()
		return
	}
	switch {
	case !c.is(lingering): // a half of it
		_ = unix.Shutdown(int(c.fd), unix.SHUT_WR)
		return
	case c.is(eof):
		c.close(io.EOF)
		return
	}
	_ = unix.Shutdown(int(c.fd), unix.SHUT_WR)
	c.deadline = k.now() + lingerTime
	c.arm()
}

// finish has the end of the stream follow what is held.
func (k *link) finish() {
	if !k.out.ended {
		k.out.finish(k.now() + k.f.held(writing) + k.slowClose(writing))
		k.stir()
	}
}

// linger is conn.linger: the end comes once what is held has passed.
func (k *link) linger() {
	c := k.c
	if k.out.over && c.is(eof) {
		c.close(io.EOF)
		return
	}
	c.flags |= lingering
	c.queue().tolerated = c.received + lingerBytes
	k.finish()
	c.deadline = k.lingerUntil()
	if c.is(eof) {
		c.waitFor(0)
	} else {
		c.waitFor(mux.Readable)
	}
}

// lingerUntil is when a connection that lingers is closed at last; while it is
// cut off nothing ends it.
func (k *link) lingerUntil() time.Duration {
	if k.out.cut {
		return 0
	}
	return max(k.out.end, k.now()) + lingerTime
}

// leave takes the link out.
func (k *link) leave() {
	c := k.c
	k.drop()
	c.rare.link = nil
	err := change(c.l.set.loop, int(c.fd), &k.kernel, c.want)
	if err != nil {
		c.close(err)
		return
	}
	c.repace()
}

// drop lets go of what it has.
func (k *link) drop() {
	k.c.l.set.loop.Disarm(&k.timer)
	k.in.clear()
	k.out.clear()
}
