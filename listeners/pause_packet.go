package listeners

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// pause is endpoint.pause. What has arrived waits until the end of the pause,
// in every mode.
func (s *packetSocket) pause(mode PauseMode) error {
	if s.paused == mode || s.fd < 0 || s.replaced {
		return nil
	}
	if err := s.unpause(); err != nil {
		return err
	}
	var err error
	switch mode {
	case NotPaused, Hold:
	case Stall:
		err = attachFilter(s.fd, dropAll)
	case Refuse:
		err = s.connectToSelf()
	}
	if err != nil {
		s.rise()
		return err
	}
	s.paused = mode
	if mode == NotPaused {
		s.rise()
	} else {
		s.rest()
	}
	return nil
}

func (s *packetSocket) unpause() error {
	switch s.paused {
	case NotPaused, Hold:
	case Stall:
		if err := detachFilter(s.fd); err != nil {
			return err
		}
	case Refuse:
		if s.stuck() {
			return errStuckSocket
		}
		unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(s.fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec)); errno != 0 {
			return os.NewSyscallError("connect", errno)
		}
		if err := s.bindAgain(); err != nil {
			return err
		}
	}
	s.paused = NotPaused
	return nil
}

// stuck reports whether a new socket must take the place of this one to serve
// again. It was lost; or: connecting to AF_UNSPEC does not take back the peer's address of an
// IPv6 socket (the kernel leaves sk_v6_daddr), so that it hears nobody else.
func (s *packetSocket) stuck() bool { return s.lost || s.paused == Refuse && s.family == unix.AF_INET6 }

// connectToSelf makes the socket one for datagrams from its own address, of
// which there are none: for all others nobody is at the port, and the kernel
// tells them so (ICMP port unreachable, their ECONNREFUSED).
func (s *packetSocket) connectToSelf() error {
	a := s.addr
	switch ip := a.IP.Addr(); {
	case ip.IsUnspecified() && s.family == unix.AF_INET6:
		a.IP = netip.AddrPortFrom(netip.IPv6Loopback(), a.IP.Port())
	case ip.IsUnspecified():
		a.IP = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.IP.Port())
	}
	sa, _, err := a.sockaddr()
	if err != nil {
		return err
	}
	return os.NewSyscallError("connect", unix.Connect(s.fd, sa))
}

// rest takes the socket off the loop, unless it has something to send still.
func (s *packetSocket) rest() {
	if !s.resting && len(s.unsent) == 0 {
		s.resting = true
		s.l.stir()
		_ = s.l.set.loop.Remove(s.fd) // it is there
	}
}

// rise puts it back.
func (s *packetSocket) rise() {
	if !s.resting || s.fd < 0 || s.lost || s.paused != NotPaused || s.l.passed || s.l.failing != "" {
		return
	}
	if err := s.l.set.loop.Add(s.fd, mux.Readable, s); err != nil {
		s.l.set.log.Error("cannot wait for datagrams", "listener", s.l.Name, "address", s.addr, "error", err)
		return
	}
	s.resting = false
}
