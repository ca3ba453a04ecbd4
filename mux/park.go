package mux

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A system call that waits keeps a processor of Go's until the runtime's monitor
// takes it away, and the monitor gets up every few microseconds to see whether
// it should: fifty times and more after every turn of a loop that has nothing
// else to do. So a loop whose waits are long is parked by the runtime, as a
// goroutine that reads a socket is: its epoll descriptor is in the runtime's own
// epoll. A loop that is busy waits in the system call, which is the shorter way.
const (
	longWait   = 100 * time.Microsecond // from here on the monitor costs more than parking
	shortWaits = 16                     // so many in a row, and the loop is busy
	busyWaits  = 1024                   // so many, and it is looked whether it is still
)

// parking is how an epoll descriptor is waited for without a system call.
type parking struct {
	file  *os.File // owns the descriptor
	conn  syscall.RawConn
	short int // waits in a row that were short

	looks func(uintptr) bool // asks what is ready, and notes it here
	n     int
	err   error
}

// open takes over the descriptor, unless it fails. look asks what is ready now.
func (p *parking) open(fd int, look func() (int, error)) error {
	if err := unix.SetNonblock(fd, true); err != nil { // else the runtime does not take it
		return os.NewSyscallError("fcntl", err)
	}
	p.file = os.NewFile(uintptr(fd), "epoll")
	var err error
	p.conn, err = p.file.SyscallConn()
	p.looks = func(uintptr) bool {
		p.n, p.err = look()
		return p.n > 0 || p.err != nil
	}
	return err
}

func (p *parking) close() error { return p.file.Close() }

// quiet reports whether the next wait is likely to be long.
func (p *parking) quiet() bool { return p.short < shortWaits }

// atMost bounds a wait in the system call: when nothing comes in that time, the
// loop is not busy.
func (p *parking) atMost(timeout time.Duration) time.Duration {
	if timeout < 0 {
		return longWait
	}
	return min(timeout, longWait)
}

// waited is told of a wait in the system call.
func (p *parking) waited(n int) {
	switch p.short++; {
	case n == 0:
		p.short = 0
	case p.short == busyWaits:
		p.short = shortWaits - 1 // the next wait is timed
	}
}

// wait looks whenever there may be something ready, until it finds something or
// the time is up.
func (p *parking) wait(timeout time.Duration) (int, error) {
	began := time.Now()
	var until time.Time // zero: for ever
	if timeout > 0 {
		until = began.Add(timeout)
	}
	if err := p.file.SetReadDeadline(until); err != nil {
		return 0, err
	}
	p.n, p.err = 0, nil
	err := p.conn.Read(p.looks)
	if p.short++; time.Since(began) >= longWait {
		p.short = 0
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	return p.n, errors.Join(err, p.err)
}
