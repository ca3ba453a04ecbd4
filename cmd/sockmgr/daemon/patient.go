package daemon

import (
	"errors"
	"net"
	"syscall"
)

// A patient listener goes on after an accept that failed. gRPC and net/http wait
// and try again when the error says that it is temporary, and otherwise never
// accept again; the net package says so of EMFILE and ENFILE, but a kernel that is
// short of memory, or has a filter, comes to itself too.
type patient struct{ net.Listener }

// Accept takes the next connection.
func (p patient) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EINVAL) { // EINVAL: it was shut
		return conn, err
	}
	return nil, passing{err}
}

// passing is an error of now.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// Temporary is what servers ask.
func (passing) Temporary() bool { return true }

// Timeout is part of net.Error.
func (passing) Timeout() bool { return false }
