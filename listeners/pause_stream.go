package listeners

import (
	"errors"
	"fmt"
	"os"
	"strings"

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
	if mode == Refuse {
		if err := s.canComeBack(); err != nil {
			s.rise()
			return err
		}
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

// canComeBack keeps a port from being refused that could not be had back while
// one of its connections is open (EADDRINUSE).
func (s *streamSocket) canComeBack() error {
	if !s.addr.Network.ip() {
		return nil
	}
	if on, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil || on != 0 {
		return os.NewSyscallError("getsockopt SO_REUSEADDR", err)
	}
	return &Fault{
		Reason: StateInvalid, Message: fmt.Sprintf("%v cannot refuse without reuse_address: its open connections would keep it from listening again", s.addr),
		Fix: "pause with --mode hold, or set reuse_address",
	}
}

// unpause takes back what pause has done to the socket, which rests still.
func (s *streamSocket) unpause() error {
	switch {
	case s.paused == Stall:
		if err := detachFilter(s.fd); err != nil {
			return err
		}
	case s.stuck():
		return errStuckSocket
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

// stuck reports whether a new socket must take the place of this one to serve
// again: a Unix socket that is shut cannot listen any more.
func (s *streamSocket) stuck() bool { return s.lost || s.shut && !s.addr.Network.ip() }

// errStuckSocket is no fault of the operator's: the manager opens a new socket.
var errStuckSocket = errors.New("this socket cannot serve again after it has refused")

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
	if f, ok := errors.AsType[*Fault](err); ok {
		if strings.HasPrefix(f.Message, name+": ") {
			return err
		}
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
