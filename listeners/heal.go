package listeners

import "golang.org/x/sys/unix"

// isShut reports whether somebody has shut the socket for reading. A Unix socket,
// and every datagram socket, says EAGAIN as ever then, and is reported for ever.
func (s *socket) isShut() bool {
	p := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(p[:], 0)
	return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) != 0
}

// isLost reports whether a stream socket that says EAGAIN was shut. One for TCP says
// EINVAL then.
func (s *streamSocket) isLost() bool {
	return !s.addr.Network.ip() && !s.shut && s.ending == serving && s.isShut()
}

// lose takes a socket off the loop that does not listen any more, though nobody
// here has told it so: who has a copy has shut it (shutdown(2)), or root has
// destroyed it (ss -K). It stays shut: a TCP socket that was destroyed listens
// again if asked to, but what it accepts is shut as well.
func (s *streamSocket) lose() {
	if s.ending != serving {
		s.leave()
		return
	}
	s.rest()
	s.shut, s.lost = true, true
	s.l.lose(s.socket)
}

// isLost reports whether errno, of a datagram socket, says that it was shut or
// destroyed. A datagram of no bytes is none of this: it is received as others are.
//
//	EAGAIN        on receiving: nothing is there, and still it is reported
//	ECONNABORTED  destroyed; if the kernel chose its port, it has none now
//	EPIPE         on sending, of UDP; of a Unix socket the other may be the one that is shut
func (s *packetSocket) isLost(errno unix.Errno) bool {
	switch errno {
	case unix.EAGAIN:
		return s.isShut()
	case unix.ECONNABORTED, unix.EPIPE:
		return s.addr.Network.ip()
	default:
		return false
	}
}

// lose takes a datagram socket off the loop, which would be told of it for ever.
// Nothing waits to be sent on it after that.
func (s *packetSocket) lose() {
	if s.lost {
		return
	}
	s.lost, s.unsent = true, nil
	s.rest()
	s.l.lose(s.socket)
}

// lose tells of a socket that was lost.
func (l *Listener) lose(s *socket) {
	l.set.log.Warn("a socket was shut from outside", "listener", l.Name, "address", s.addr)
	if l.set.lost != nil {
		l.set.lost(l, s.addr)
	}
}
