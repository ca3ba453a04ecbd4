package listeners

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// SavedExecutor is who has started programs that move, or is to start some.
type SavedExecutor struct {
	Listener string
	Spec     []byte // JSON of the Exec; empty: it is the listener's handler
	Serves   []byte // see marshalHandler; empty: Spec is all
	Failures []time.Duration
}

// SavedStderr is where the programs of one executor write to.
type SavedStderr struct {
	Executor int
	R, W     int
	Partial  []byte
	Cut      bool
	Credit   float64
	At       time.Duration
	Dropped  int
	Told     time.Duration
}

// SavedProcess is a program that runs. It goes on as a child of the process that
// has forked it, or of whoever takes that one's orphans.
type SavedProcess struct {
	PID, File                        int
	Patience, Began, Lived, Deadline time.Duration
	Killed, Asked, Reaped, Known     bool
	Kept                             string
	Status                           uint32
}

// SavedExec is a connection that a program serves.
type SavedExec struct {
	Executor       int
	Program        *SavedProcess // nil: it is to be started
	Why            *SavedError   // it is to be closed because of
	Gone           time.Duration // when its program is ended, since the client is gone; 0: it is not
	Local          Address
	Received, Sent uint64
}

// SavedPassing is a program that has the listening sockets.
type SavedPassing struct {
	Executor    int
	Holder      *SavedProcess // nil: there is none
	Halted      bool
	Given       []int // the sockets, by their places
	Last, Again time.Duration
}

// SavedError is an error with which a connection is to be closed.
type SavedError struct {
	Text  string
	Errno unix.Errno
}

func saveError(err error) *SavedError {
	if err == nil {
		return nil
	}
	s := &SavedError{Text: err.Error()}
	errors.As(err, &s.Errno)
	return s
}

// error is the one that the reasons of package listeners go by, if it is one.
func (s *SavedError) error() error {
	switch {
	case s == nil:
		return nil
	case s.Errno != 0:
		return s.Errno
	case s.Text == io.EOF.Error():
		return io.EOF
	}
	for _, e := range closeErrors {
		if e.err.Error() == s.Text {
			return e.err
		}
	}
	return errors.New(s.Text)
}
