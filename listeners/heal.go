package listeners

import "golang.org/x/sys/unix"

// isShut reports whether a Unix socket was shut. It says EAGAIN as ever then, and
// is reported for ever.
func (s *streamSocket) isShut() bool {
	if s.addr.Network.ip() || s.shut || s.ending != serving {
		return false
	}
	p := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(p[:], 0)
	return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) != 0
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
	s.l.set.log.Warn("a socket was shut from outside", "listener", s.l.Name, "address", s.addr)
	if s.l.set.lost != nil {
		s.l.set.lost(s.l, s.addr)
	}
}
