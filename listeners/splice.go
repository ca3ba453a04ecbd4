package listeners

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spliceAfter is how many reads in a row must be long before bytes are
	// moved without being copied to the daemon.
	spliceAfter = 4
	// worthSplicing is what is long: a pipe costs two system calls for each
	// move, as a copy does, and more for each page than a copy of a few.
	worthSplicing = 32 << 10
	// PipeSize is the room of a pipe. With 64 KiB a byte costs twice the CPU.
	PipeSize = 1 << 20
	// spliceRuns is how many pipes full of one flow are moved at once where the
	// other way streams too, and spliceTime how long the turn may have lasted for
	// that: to serve many such flows in turn, a pipe each, lets what waits for all
	// of them grow until it is in no cache any more, and then a byte costs half as
	// much again. One way alone it costs more.
	spliceRuns = 16
	spliceTime = 2 * time.Millisecond
	// pipesKept is how many empty pipes wait for the next flow. All pipes of a
	// user share 64 MiB (pipe-user-pages-soft); beyond it new ones are small.
	pipesKept = 16
)

// A pipe holds bytes in the kernel between two sockets.
type pipe struct {
	set  *Set
	r, w int
	held int // bytes in it
}

// takePipe returns an empty pipe; nil when there is none to be had.
func (s *Set) takePipe() *pipe {
	if n := len(s.pipes); n > 0 {
		p := s.pipes[n-1]
		s.pipes = s.pipes[:n-1]
		return p
	}
	if s.limit > 0 && s.used+2 > s.limit {
		return nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil
	}
	s.used += 2
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, PipeSize) // EPERM: it stays smaller
	return &pipe{set: s, r: fds[0], w: fds[1]}
}

// release gives the pipe back; one that holds something is closed.
func (p *pipe) release() {
	if p.held == 0 && len(p.set.pipes) < pipesKept {
		p.set.pipes = append(p.set.pipes, p)
		return
	}
	p.close()
}

func (p *pipe) close() {
	sysClose(p.r)
	sysClose(p.w)
	p.set.used -= 2
}

func sysSplice(from, to, n int) (int, unix.Errno) {
	moved, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
		unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	return int(moved), errno
}

// splice moves what the source has by way of a pipe, and where both ways stream
// goes on for as long as it has much and the other side takes it. It reports whether that could be done.
func (f *flow) splice(r *relay, from, to int) bool {
	n := f.spliceOnce(r, from, to)
	if n == 0 {
		f.full = 0
		return false // the read tells what it is
	}
	if n < worthSplicing/2 {
		f.full = 0 // it streams no more
	}
	both := r.there.full >= spliceAfter && r.back.full >= spliceAfter
	for runs := 1; both && n >= PipeSize/2 && !f.pending() && !f.eof && runs < spliceRuns; runs++ {
		if time.Since(r.c.l.set.loop.Now()) > spliceTime {
			break
		}
		n = f.spliceOnce(r, from, to)
	}
	return true
}

// spliceOnce moves a pipe full, which the flow keeps only while there is
// something in it. 0 is that nothing could be moved.
func (f *flow) spliceOnce(r *relay, from, to int) int {
	p := r.c.l.set.takePipe()
	if p == nil {
		return 0
	}
	n, errno := sysSplice(from, p.w, PipeSize)
	if errno != 0 || n == 0 {
		p.release()
		return 0
	}
	p.held = n
	if from == int(r.c.fd) {
		r.c.gotBytes(n)
	}
	f.pipe = p
	f.drain(r, to)
	return n
}

// drain empties the pipe into the socket.
func (f *flow) drain(r *relay, to int) {
	for f.pipe.held > 0 {
		n, errno := sysSplice(f.pipe.r, to, f.pipe.held)
		switch {
		case errno == 0:
			f.pipe.held -= n
		case isLater(errno):
			return
		default:
			f.refuse(errno)
			return
		}
		if to == int(r.c.fd) {
			r.c.sentBytes(n)
		}
	}
	f.pipe.release()
	f.pipe = nil
}

// unsplice takes what the pipe has into memory.
func (f *flow) unsplice(r *relay) {
	for f.pipe != nil && f.pipe.held > 0 {
		n, err := unix.Read(f.pipe.r, r.c.l.set.buf[:min(len(r.c.l.set.buf), f.pipe.held)])
		if err != nil || n <= 0 {
			break // it has what was put in: this does not happen
		}
		f.rest = append(f.rest, r.c.l.set.buf[:n]...)
		f.pipe.held -= n
	}
	if f.pipe != nil {
		f.pipe.release()
		f.pipe = nil
	}
}
