package listeners

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel hands datagrams of one size that come in a row from one sender over
// as one buffer (UDP_GRO), and takes them so (UDP_SEGMENT): a way through its
// layers for up to 64 of them.
const (
	mostSegments = 64                                // UDP_MAX_SEGMENTS, of older kernels
	mostTogether = 1<<16 - 1 - 20 - 8                // a packet of IPv4 is no longer
	iovRoom      = 16 * batchSize                    // pieces of all that go out in one call
	segmentSpace = (unix.SizeofCmsghdr + 2 + 7) &^ 7 // of its control message
)

// gather has the kernel hand over together what comes in a row, or stops that.
// Where it cannot, nothing is different but the cost.
func gather(fd int, on int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, on)
}

// gather is gather for all sockets. A program that gets them would take several
// datagrams for one: what has been gathered already is served before.
func (l *Listener) gather(on bool) {
	for _, e := range l.endpoints {
		s, ok := e.(*packetSocket)
		if !ok || !s.addr.Network.ip() || s.fd < 0 {
			continue
		}
		if on {
			gather(s.fd, 1)
			continue
		}
		l.serveWaiting(s)
		gather(s.fd, 0)
	}
}

// serveWaiting serves what waits. Without UDP_GRO the kernel does not tell any
// more where to cut what it has gathered.
func (l *Listener) serveWaiting(s *packetSocket) {
	s.singles = singles{}    // many may wait
	for range mostSegments { // who sends for ever does not keep the loop
		before := l.stats.ReceivedDatagrams
		if l.set == nil || len(s.unsent) > 0 {
			return
		}
		if l.set.batch.receive(s); l.stats.ReceivedDatagrams == before {
			return
		}
	}
}

// readControl reads what came with a buffer: the size of the datagrams in it, 0
// if it is one, and the message that tells where they were sent to.
func readControl(in []byte) (segment int, asked []byte) {
	for len(in) >= unix.SizeofCmsghdr {
		hdr := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(in)))
		n := int(hdr.Len)
		if n < unix.SizeofCmsghdr || n > len(in) {
			break
		}
		if hdr.Level == unix.IPPROTO_UDP && hdr.Type == unix.UDP_GRO && n >= unix.SizeofCmsghdr+4 {
			segment = int(binary.NativeEndian.Uint32(in[unix.SizeofCmsghdr:]))
		} else {
			asked = in[:n]
		}
		in = in[min(len(in), (n+7)&^7):]
	}
	return segment, asked
}

// nextSegment cuts the first datagram off a buffer.
func nextSegment(p []byte, segment int) (first, rest []byte) {
	if segment <= 0 || segment >= len(p) {
		return p, nil
	}
	return p[:segment:segment], p[segment:]
}

// segments is what is known of sending several datagrams as one through a socket.
type segments struct {
	most int // bytes of the largest that can be sent so; 0: none can
}

// refused notes that the kernel does not take datagrams of a size together, and
// reports whether that is why it failed. The path has a smaller MTU, or the
// device cannot do it at all.
func (g *segments) refused(errno unix.Errno, size int) bool {
	switch errno {
	case unix.EMSGSIZE, unix.EINVAL:
		g.most = min(g.most, size-1)
	case unix.EIO, unix.EOPNOTSUPP, unix.ENOPROTOOPT:
		g.most = 0
	default:
		return false
	}
	return true
}

// length is how many bytes are sent.
func (o *outgoing) length() int { return len(o.header) + len(o.data) }

// joins reports whether o may be sent together with what comes before it.
func (o *outgoing) joins(before *outgoing) bool {
	if o.to != before.to && (o.toLen != before.toLen || !bytes.Equal(nameBytes(o), nameBytes(before))) {
		return false
	}
	return bytes.Equal(o.control, before.control)
}

func nameBytes(o *outgoing) []byte {
	return (*[unix.SizeofSockaddrAny]byte)(unsafe.Pointer(o.to))[:o.toLen]
}

// run is how many at the front of the queue can be sent together: of one size,
// but for the last, which may be shorter.
func (g *segments) run(queue []outgoing) int {
	size := queue[0].length()
	if len(queue) == 1 || size == 0 || size > g.most {
		return 1
	}
	n, total := 1, size
	for n < len(queue) && n < mostSegments {
		o := &queue[n]
		length := o.length()
		if length > size || length == 0 || total+length > mostTogether || !o.joins(&queue[n-1]) {
			break
		}
		n, total = n+1, total+length
		if length < size {
			break
		}
	}
	return n
}

// pack makes messages of as much of the queue as goes out in one call.
func (b *batch) pack(queue []outgoing, g *segments) (messages int) {
	iov := 0
	for messages < batchSize && len(queue) > 0 {
		n := g.run(queue)
		if iov+2*n > iovRoom {
			n = min(n, (iovRoom-iov)/2)
		}
		if n == 0 {
			break
		}
		first, start := &queue[0], iov
		for i := range queue[:n] {
			if o := &queue[i]; len(o.header) > 0 {
				iov = b.piece(start, iov, o.header)
			}
			iov = b.piece(start, iov, queue[i].data)
		}
		hdr := &b.out[messages].hdr
		hdr.Iov = &b.outIov[start]
		hdr.SetIovlen(iov - start)
		hdr.Name, hdr.Namelen = (*byte)(unsafe.Pointer(first.to)), first.toLen
		control := first.control
		if n > 1 {
			control = withSegment(b.segControl[messages][:0], control, first.length())
		}
		hdr.Control = unsafe.SliceData(control)
		hdr.SetControllen(len(control))
		b.runs[messages] = n
		queue = queue[n:]
		messages++
	}
	return messages
}

// piece adds p to what a message carries that began at start. What is one after
// another in memory is one piece.
func (b *batch) piece(start, at int, p []byte) int {
	if at > start {
		last := &b.outIov[at-1]
		if len(p) > 0 && unsafe.Add(unsafe.Pointer(last.Base), last.Len) == unsafe.Pointer(unsafe.SliceData(p)) {
			last.SetLen(int(last.Len) + len(p))
			return at
		}
	}
	b.outIov[at].Base = unsafe.SliceData(p)
	b.outIov[at].SetLen(len(p))
	return at + 1
}

// withSegment adds the control message that has the kernel cut at size.
func withSegment(out, control []byte, size int) []byte {
	out = append(out, control...)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	at := len(out)
	out = out[:at+segmentSpace]
	clear(out[at:])
	hdr := (*unix.Cmsghdr)(unsafe.Pointer(&out[at]))
	hdr.Level, hdr.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	hdr.SetLen(unix.SizeofCmsghdr + 2)
	binary.NativeEndian.PutUint16(out[at+unix.SizeofCmsghdr:], uint16(size))
	return out
}
