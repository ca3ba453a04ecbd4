package listeners

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// pause is endpoint.pause.
func (s *streamSocket) pause(mode PauseMode) error {
	if s.paused == mode || s.fd < 0 || s.replaced {
		return nil
	}
	if err := s.unpause(); err != nil {
		return err
	}
	if mode == NotPaused {
		s.rise()
		return nil
	}
	if mode == Stall {
		if err := attachFilter(s.fd, dropSYN); err != nil {
			s.rise()
			return err
		}
		s.filtered = true
	}
	s.paused = mode
	if mode == Refuse {
		s.finish(refusing)
		return nil
	}
	s.rest()
	return nil
}

// unpause takes back what pause has done to the socket, which rests still.
func (s *streamSocket) unpause() error {
	switch {
	case s.paused == Stall:
		if err := detachFilter(s.fd); err != nil {
			return err
		}
	case s.shut && !s.addr.Network.ip():
		return errShutUnix
	case s.shut:
		if err := s.bindAgain(); err != nil {
			return err
		}
		if err := s.l.listen(s.socket); err != nil {
			return err
		}
	}
	s.shut, s.ending, s.paused = false, serving, NotPaused
	return nil
}

// errShutUnix is no fault of the operator's: the manager opens a new socket.
var errShutUnix = errors.New("a Unix socket that refuses cannot listen again")

// refuse shuts the socket: clients get ECONNREFUSED, the address stays ours.
// It is off the loop, where it would be reported for ever (EPOLLHUP).
func (s *streamSocket) refuse() {
	s.rest()
	s.ending = serving
	if err := unix.Shutdown(s.fd, unix.SHUT_RD); err != nil {
		s.l.set.log.Error("cannot refuse; clients wait instead", "listener", s.l.Name, "address", s.addr, "error", err)
		return
	}
	s.shut = true
	if err := s.bindAgain(); err != nil {
		s.l.set.log.Error("the port could not be kept; it is tried again at resume", "listener", s.l.Name, "address", s.addr, "error", err)
	}
	s.l.ended()
}

// bindAgain binds a socket to the port that the kernel chose for it: a shut
// TCP socket, and a UDP socket that is no longer connected, give back a port
// that was not asked for by number.
func (s *socket) bindAgain() error {
	if !s.addr.Network.ip() || s.asked.IP.Port() != 0 {
		return nil
	}
	sa, _, err := s.addr.sockaddr()
	if err != nil {
		return err
	}
	if err := unix.Bind(s.fd, sa); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: it has it
		return bindFault(s.addr, err)
	}
	return nil
}

// pauseFault says what could not be paused or resumed.
func pauseFault(name string, a Address, mode PauseMode, err error) error {
	if _, ok := errors.AsType[*Fault](err); ok {
		return named(name, err)
	}
	f := &Fault{Reason: StateInvalid, Message: fmt.Sprintf("%s: %v cannot be paused (%v)", name, a, mode), Err: err}
	switch {
	case mode == NotPaused:
		f.Message = fmt.Sprintf("%s: %v cannot be resumed", name, a)
	case errors.Is(err, unix.EPERM):
		f.Reason = CapabilityMissing
		f.Message = fmt.Sprintf("%s: to stall clients of %v takes CAP_NET_ADMIN", name, a)
		f.Fix = "give the daemon AmbientCapabilities=CAP_NET_ADMIN, or pause with --mode hold or --mode refuse"
		f.Meta = map[string]string{"capability": "CAP_NET_ADMIN"}
	}
	return f
}
