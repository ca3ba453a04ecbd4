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
	ending   ending
	owed     int // while it ends: how many connections it takes still
	paused   PauseMode
	prompt   bool // in this turn connections waited for less than a tick
	filtered bool // connections that waited may have its filter
}

// ending is what a stream socket does once it has taken what waits. It takes
// that over a limit too: the kernel has told those clients that they are
// connected.
type ending uint8

const (
	serving  ending = iota // it is not ending
	retiring               // another has its address: it goes on until it is told to close
	refusing
	closing
)

func (s *streamSocket) sock() *socket { return s.socket }

// Ready accepts.
func (s *streamSocket) Ready(mux.Events) {
	s.l.stir()
	if x := s.l.passer(); x != nil && s.ending == serving {
		x.pass()
		return
	}
	s.prompt = false
	for range acceptsPerTurn {
		if s.ending > retiring && s.owed <= 0 {
			s.end()
			return
		}
		if s.l.isFull() && s.ending == serving {
			s.l.limit()
			return
		}
		if s.ending > retiring && s.l.isFull() && s.l.executes() {
			s.owed = 0 // the limit is on processes: what waits beyond it is let go
			s.end()
			return
		}
		if s.l.tunables.AcceptRate > 0 && s.ending == serving && s.l.isThrottled() {
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
		if r := s.l.spec.Access.rules; r != nil && !r.admits(fd, &from) {
			s.l.refuse(fd, RejectedAccess, r.reset)
			return true
		}
		if s.l.tunables.MaxPerSource > 0 && s.l.isCrowded(&from) {
			s.l.refuse(fd, RejectedSource, s.l.spec.Access.Reset)
			return true
		}
		s.l.countAccept()
		if s.filtered {
			_ = detachFilter(fd) // what it inherited drops nothing that it gets
		}
		s.l.admit(fd, s, &from)
		return true
	case unix.EAGAIN:
		if s.isLost() {
			s.lose()
			return false
		}
		s.filtered = s.paused == Stall
		s.end()
		return false
	case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.ENETDOWN,
		unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENONET, unix.EOPNOTSUPP:
		if errno != unix.EINTR {
			s.l.stats.failed("accept4", errno)
		}
		return true // this connection is gone (accept(2)); the next may be well
	case unix.EINVAL:
		s.l.stats.failed("accept4", errno)
		s.lose()
		return false
	default: // EMFILE, ENFILE, ENOBUFS, ENOMEM: nothing now
		s.l.stats.failed("accept4", errno)
		s.hungry(os.NewSyscallError("accept4", errno))
		return false
	}
}

// hungry waits for descriptors; one that is closing does not wait.
func (s *streamSocket) hungry(why error) {
	if s.ending == closing {
		s.leave()
		return
	}
	s.l.set.starve(s, why)
}

// rest takes the socket off the loop.
func (s *streamSocket) rest() {
	if !s.resting {
		s.resting = true
		s.l.stir()
		_ = s.l.set.loop.Remove(s.fd) // it is there
	}
}

// rise puts it back, unless its listener is at its limit or paused.
func (s *streamSocket) rise() {
	if !s.resting || s.fd < 0 || s.shut || s.ending == serving && (s.l.isResting() || s.paused != NotPaused || s.l.passed) {
		return
	}
	if err := s.l.set.loop.Add(s.fd, mux.Readable, s); err != nil {
		s.l.set.log.Error("cannot wait for connections", "listener", s.l.Name, "address", s.addr, "error", err)
		return
	}
	s.resting = false
}

// stop accepts what waits now, then closes.
func (s *streamSocket) stop() {
	if s.shut {
		s.leave() // nothing can wait there
		return
	}
	s.finish(closing)
}

// retire goes on accepting, over a limit too, what comes to it still.
func (s *streamSocket) retire() {
	if s.shut || s.l.passer() != nil {
		s.leave()
		return
	}
	if s.ending == serving {
		s.ending = retiring
		s.rise()
	}
}

// finish accepts what waits now, and then ends so.
func (s *streamSocket) finish(how ending) {
	if s.fd < 0 || s.ending >= how {
		return
	}
	if s.l.passer() != nil { // the program accepts
		s.ending = how
		s.end()
		return
	}
	waiting, _, err := s.acceptQueue()
	if err != nil {
		waiting = acceptsPerTurn // it cannot be told
	}
	s.ending, s.owed = how, int(waiting)
	s.rise()
	s.Ready(mux.Readable)
}

// end does what the socket was to do once nothing waits.
func (s *streamSocket) end() {
	switch s.ending {
	case closing:
		s.leave()
	case refusing:
		s.refuse()
	default: // serving, retiring: more will come
	}
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
	if l.failing != "" || l.crowded() || l.executes() && l.tunables.MaxProcesses > 0 && l.active >= l.tunables.MaxProcesses {
		return true
	}
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
		if !l.byRate() {
			l.to(Running)
		}
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
