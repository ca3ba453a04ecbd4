package listeners

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// acceptsPerTurn bounds what one busy port takes of a turn.
const acceptsPerTurn = 64

// A streamSocket accepts connections.
type streamSocket struct {
	*socket
	l        *Listener
	resting  bool // off the loop: connections wait in the kernel
	stopping bool // accepts what still waits, then closes
	owed     int  // while stopping: how many that may be
}

func (s *streamSocket) sock() *socket { return s.socket }

// Ready accepts.
func (s *streamSocket) Ready(mux.Events) {
	for range acceptsPerTurn {
		if s.stopping && s.owed == 0 {
			s.leave()
			return
		}
		if s.l.isFull() && !s.stopping {
			s.l.limit()
			return
		}
		if s.l.set.full() {
			s.hungry(errDescriptors)
			return
		}
		if !s.accept() {
			return
		}
	}
}

var errDescriptors = errors.New("limit of descriptors reached")

// accept takes one connection; it reports whether to go on.
func (s *streamSocket) accept() bool {
	var from unix.RawSockaddrAny
	fd, errno := sysAccept(s.fd, &from)
	switch errno {
	case 0:
		s.owed--
		s.l.admit(fd, s, &from)
		return true
	case unix.EAGAIN:
		if s.stopping {
			s.leave()
		}
		return false
	case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.ENETDOWN,
		unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENONET, unix.EOPNOTSUPP:
		if errno != unix.EINTR {
			s.l.stats.failed("accept4", errno)
		}
		return true // this connection is gone (accept(2)); the next may be well
	default: // EMFILE, ENFILE, ENOBUFS, ENOMEM: nothing now. EINVAL: shut down from outside
		s.l.stats.failed("accept4", errno)
		s.hungry(os.NewSyscallError("accept4", errno))
		return false
	}
}

// hungry waits for descriptors; one that is stopping does not wait.
func (s *streamSocket) hungry(why error) {
	if s.stopping {
		s.leave()
		return
	}
	s.l.set.starve(s, why)
}

// rest takes the socket off the loop.
func (s *streamSocket) rest() {
	if !s.resting {
		s.resting = true
		_ = s.l.set.loop.Remove(s.fd) // it is there
	}
}

// rise puts it back, unless its listener is at its limit.
func (s *streamSocket) rise() {
	if !s.resting || s.fd < 0 || s.l.state == Limited && !s.stopping {
		return
	}
	if err := s.l.set.loop.Add(s.fd, mux.Readable, s); err != nil {
		s.l.set.log.Error("cannot wait for connections", "listener", s.l.Name, "address", s.addr, "error", err)
		return
	}
	s.resting = false
}

// stop accepts what waits now, over a limit too, since the kernel has told
// those clients that they are connected; then it closes.
func (s *streamSocket) stop() {
	waiting, _, err := s.acceptQueue()
	if err != nil {
		waiting = acceptsPerTurn // it cannot be told
	}
	s.stopping, s.owed = true, int(waiting)
	s.rise()
	s.Ready(mux.Readable)
}

// leave closes the socket.
func (s *streamSocket) leave() {
	if s.fd < 0 {
		return
	}
	s.rest()
	s.close()
	s.l.set.released()
	s.l.ended()
}

// isFull reports whether the listener has as many connections as it may.
func (l *Listener) isFull() bool {
	return l.tunables.MaxConnections > 0 && l.active >= l.tunables.MaxConnections
}

// limit stops accepting until a connection ends or the limit is raised.
func (l *Listener) limit() {
	if l.state == Running {
		l.to(Limited)
	}
	l.eachStream((*streamSocket).rest)
}

// unlimit accepts again if there is room.
func (l *Listener) unlimit() {
	if l.state == Limited && !l.isFull() {
		l.to(Running)
		l.eachStream((*streamSocket).rise)
	}
}

func (l *Listener) eachStream(f func(*streamSocket)) {
	for _, e := range l.endpoints {
		if s, ok := e.(*streamSocket); ok {
			f(s)
		}
	}
}
