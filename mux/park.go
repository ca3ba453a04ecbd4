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
// else to do. So a loop that waits is parked by the runtime, as a goroutine that
// reads a socket is: its epoll descriptor is in the runtime's own epoll.

// parking is how an epoll descriptor is waited for without a system call.
type parking struct {
	file *os.File // owns the descriptor
	conn syscall.RawConn

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

// wait looks whenever there may be something ready, until it finds something or
// the time is up.
func (p *parking) wait(timeout time.Duration) (int, error) {
	var until time.Time // zero: for ever
	if timeout > 0 {
		until = time.Now().Add(timeout)
	}
	if err := p.file.SetReadDeadline(until); err != nil {
		return 0, err
	}
	p.n, p.err = 0, nil
	err := p.conn.Read(p.looks)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	return p.n, errors.Join(err, p.err)
}
