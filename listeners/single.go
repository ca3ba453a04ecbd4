package listeners

import "golang.org/x/sys/unix"

// mostSingles is how many times in a row a socket is read without looking
// whether more than one datagram waits.
const mostSingles = 16

// singles is how a socket is read whose datagrams come one at a time. To ask for
// a batch costs a sixth more where there is one, and three tenths less where there
// are many: so after one that came alone one is taken alone, then two, four and
// so on, until there are more, or the socket has one again at once.
type singles struct {
	left  uint8  // that are taken alone before a batch is asked for
	last  uint8  // how many that were last time
	waits uint64 // of the loop, when one was taken last
}

// due reports whether the next datagram is to be taken alone. waits tells
// whether the loop has waited for it.
func (s *singles) due(waits uint64) bool {
	if waits == s.waits {
		s.left = 0
	}
	s.waits = waits
	if s.left == 0 {
		return false
	}
	s.left--
	return true
}

// took is told how many datagrams came: what is taken alone may be gathered of
// several.
func (s *singles) took(n int, alone bool) {
	switch {
	case n > 1:
		s.left, s.last = 0, 0
	case !alone:
		s.last = min(max(2*s.last, 1), mostSingles)
		s.left = s.last
	}
}

// fill takes datagrams from a socket, as many as are mostly there at once. name
// and control are the room for who each is from, and for what comes with it.
func (b *batch) fill(fd int, alone bool, name uint32, control int) (n int, call string, errno unix.Errno) {
	if alone {
		b.clean(0, name, control)
		n, errno = sysRecvmsg(fd, &b.in[0].hdr)
		b.in[0].len = uint32(n)
		return 1, "recvmsg", errno
	}
	for i := range b.in[:b.take] {
		b.clean(i, name, control)
	}
	n, errno = sysMmsg(unix.SYS_RECVMMSG, fd, b.in[:b.take])
	return n, "recvmmsg", errno
}

// clean makes a place ready to be filled.
func (b *batch) clean(i int, name uint32, control int) {
	h := &b.in[i].hdr
	h.Namelen = name
	h.SetControllen(control)
}

// empty sends what goes out of the queue in one call. b.runs tells how many
// datagrams there are in each message that was sent, or in the one that failed.
func (b *batch) empty(fd int, queue []outgoing, g *segments) (sent int, call string, errno unix.Errno) {
	if o := &queue[0]; len(queue) == 1 && len(o.header) == 0 && len(o.control) == 0 {
		b.runs[0] = 1
		return 1, "sendto", sysSendTo(fd, o.data, o.to, o.toLen)
	}
	n := b.pack(queue, g)
	sent, errno = sysMmsg(unix.SYS_SENDMMSG, fd, b.out[:n])
	return sent, "sendmmsg", errno
}
