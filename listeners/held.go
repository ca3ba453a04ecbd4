package listeners

// Held is a socket of a listener, or one of its connections, as a socket.
type Held struct {
	SocketStatus
	Listener   string
	Connection bool
	Remote     Address
	TCP        *TCPInfo // in full, of TCP
	Congestion string   // as TCP
}

// HeldAt returns what a listener has on the loop at a descriptor.
func (s *Set) HeldAt(fd int, full bool) (h Held, ok bool) {
	switch x := s.loop.HandlerOf(fd).(type) {
	case *streamSocket:
		h.Listener, h.SocketStatus = x.l.Name, x.socket.descriptor().Status(x.waits())
		h.Queue.AcceptPeak = x.peak
	case *packetSocket:
		h.Listener, h.SocketStatus = x.l.Name, x.socket.descriptor().Status(x.waits())
		h.Queue.UserSend = uint64(x.pending)
	case *conn:
		h = x.held(full)
	default:
		return h, false
	}
	return h, true
}

// CookieAt is the cookie of what HeldAt returns; 0 of nothing.
func (s *Set) CookieAt(fd int) uint64 {
	switch x := s.loop.HandlerOf(fd).(type) {
	case *conn:
		return x.cookie()
	case *streamSocket, *packetSocket:
		return cookieOf(fd)
	default:
		return 0
	}
}

func (c *conn) held(full bool) Held {
	st := c.status(DetailFull)
	h := Held{
		Listener: c.l.Name, Connection: true, Remote: st.Remote,
		SocketStatus: SocketStatus{
			FD: st.FD, Cookie: st.Cookie, Inode: st.Inode, Local: st.Local, Waits: st.Waits,
			Queue: st.Queue, Memory: st.Memory, Made: st.Opened,
		},
	}
	if st.TCP != nil {
		h.State = st.TCP.State
	}
	if full {
		h.TCP, h.Congestion = st.TCP, st.Congestion
	}
	return h
}

func (s *socket) descriptor() Descriptor {
	return Descriptor{FD: s.fd, Family: s.family, Network: s.addr.Network, Made: s.made}
}
