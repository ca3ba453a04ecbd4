package listeners

import (
	"os"

	"golang.org/x/sys/unix"
)

// A flow is one direction of a relay.
type flow struct {
	rest []byte     // read, and not taken by the other side yet
	eof  bool       // the source has finished, or the other side takes no more
	shut bool       // and that was passed on
	lost unix.Errno // why the other side takes no more; 0: it does
	full uint8      // reads in a row that filled the buffer
	pipe *pipe      // has what was spliced and not taken yet; nil: nothing
}

func (f *flow) pending() bool { return len(f.rest) > 0 || f.pipe != nil }

// held is how many bytes it has in user space, or in a pipe.
func (f *flow) held() uint64 {
	n := len(f.rest)
	if f.pipe != nil {
		n += f.pipe.held
	}
	return uint64(n)
}

// wantsInput reports whether to read: not before all that was read is gone,
// which is what keeps a slow receiver's sender waiting.
func (f *flow) wantsInput() bool { return !f.eof && !f.pending() }

// drop gives back what it holds.
func (f *flow) drop() {
	f.rest = nil
	if f.pipe != nil {
		f.pipe.release()
		f.pipe = nil
	}
}

// pump reads once and passes on.
func (f *flow) pump(r *relay, from, to int) {
	if f.full >= spliceAfter && (r.c.rare == nil || r.c.mayBeSpliced()) && !r.c.l.isPressed() && f.splice(r, from, to) {
		return
	}
	buf := r.c.l.set.buf
	if r.c.l.isPressed() {
		buf = buf[:pressedBytes]
	}
	d := r.c.durable()
	if d != nil {
		buf = d.flowBuffer(r, f)
	}
	if from == int(r.c.fd) {
		buf = buf[:min(len(buf), r.c.room(reading))]
		if len(buf) == 0 {
			return // settle sees to it
		}
	}
	n, errno := r.recv(from, buf)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case n == 0 && r.other(f).lost == unix.ECONNRESET: // the write was told, and only it
		r.fail(from, os.NewSyscallError("write", unix.ECONNRESET))
		return
	case errno == unix.EPIPE: // it has finished, and then reset: it takes no more
		r.other(f).refuse(errno)
		fallthrough
	case errno == 0 && n == 0:
		f.eof = true
		f.finish(r, to)
		return
	case errno != 0:
		r.fail(from, os.NewSyscallError("read", errno))
		return
	}
	f.full = min(f.full+1, spliceAfter)
	if n < worthSplicing {
		f.full = 0
	}
	fromClient := from == int(r.c.fd)
	if fromClient {
		r.c.gotBytes(n)
	}
	if d != nil {
		d.flowed(r, f, n)
	}
	sent := f.send(r, to, buf[:n], !fromClient)
	switch {
	case sent == n || f.eof:
	case d != nil:
		f.rest = buf[sent:n:n] // it stays there until it is gone
	default:
		f.rest = append(f.rest[:0], buf[sent:n]...)
	}
}

// mayBeSpliced reports whether nothing has to see the bytes of the connection.
func (c *conn) mayBeSpliced() bool {
	return c.rare == nil || c.rare.pace == nil && c.rare.link == nil && c.rare.durable == nil
}

// send gives p to the kernel, which may take a part of it.
func (f *flow) send(r *relay, to int, p []byte, toClient bool) int {
	if toClient {
		p = p[:min(len(p), r.c.room(writing))]
		if len(p) == 0 {
			return 0
		}
		if k := r.c.link(); k != nil {
			return k.send(p)
		}
	}
	n, errno := sysSend(to, p)
	switch {
	case errno == 0:
		if toClient {
			r.c.sentBytes(n)
		}
		return n
	case isLater(errno):
		return 0
	default:
		f.refuse(errno)
		return 0
	}
}

// isLater reports whether the kernel takes nothing just now: with ENOBUFS and
// ENOMEM it is short of memory, and the connection is well.
func isLater(errno unix.Errno) bool {
	return errno == unix.EAGAIN || errno == unix.EINTR || errno == unix.ENOBUFS || errno == unix.ENOMEM
}

// isOver reports whether what a write was told ends the connection: the read is
// told of an end too. After all else it would wait for one for ever.
func isOver(errno unix.Errno) bool {
	switch errno {
	case 0, unix.EPIPE, unix.ECONNRESET, unix.ECONNABORTED, unix.ECONNREFUSED, unix.ETIMEDOUT, unix.ENOTCONN,
		unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN:
		return true
	default:
		return false
	}
}

// refuse notes that the other side takes no more: it has closed, or reset. What
// it has sent before is still passed on; its own end then ends the relay.
func (f *flow) refuse(why unix.Errno) {
	f.drop()
	f.eof, f.shut, f.lost = true, true, why
}

// flush passes on what waits.
func (f *flow) flush(r *relay, _, to int) {
	if f.pipe != nil {
		f.drain(r, to)
	} else {
		f.rest = f.rest[f.send(r, to, f.rest, to == int(r.c.fd)):]
	}
	if len(f.rest) == 0 {
		f.rest = nil // an idle connection holds no buffer
	}
	f.finish(r, to)
}

// finish passes on that the source has finished, once all it sent is gone.
func (f *flow) finish(r *relay, to int) {
	if f.eof && !f.shut && !f.pending() {
		if k := r.c.link(); k != nil && to == int(r.c.fd) {
			k.finish() // which tells when that has passed
			return
		}
		f.shut = true
		_ = unix.Shutdown(to, unix.SHUT_WR) // ENOTCONN: it has reset, and its own event tells
	}
}
