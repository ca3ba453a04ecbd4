package listeners

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize    = 64
	datagramSize = 64 << 10 // no UDP datagram is longer; a longer Unix one is dropped
	controlSize  = 128      // one IP_PKTINFO or IPV6_PKTINFO, and UDP_GRO or UDP_SEGMENT, with room
	mostInTurn   = 1024     // datagrams: after more of them, fewer buffers are taken at once
)

// A batch is what recvmmsg(2) fills and sendmmsg(2) takes. All datagram sockets
// of a loop share one: it is in use only while one of them is Ready. Its pages
// are touched as far as datagrams reach.
type batch struct {
	peer packetPeer

	in        [batchSize]mmsghdr
	inIov     [batchSize]unix.Iovec
	names     [batchSize]unix.RawSockaddrAny
	inControl [batchSize][controlSize]byte
	data      []byte

	queue      []outgoing
	out        [batchSize]mmsghdr
	outIov     [iovRoom]unix.Iovec
	outControl [batchSize][controlSize]byte
	segControl [batchSize][controlSize]byte
	runs       [batchSize]int // datagrams in each of out
	none       segments       // of who sends each by itself
	take       int            // buffers to take at once
}

func newBatch() *batch {
	b := &batch{data: make([]byte, batchSize*datagramSize), queue: make([]outgoing, 0, batchSize), take: batchSize}
	for i := range b.in {
		b.inIov[i].Base = &b.data[i*datagramSize]
		b.inIov[i].SetLen(datagramSize)
		b.in[i].hdr.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		b.in[i].hdr.Iov = &b.inIov[i]
		b.in[i].hdr.SetIovlen(1)
		b.in[i].hdr.Control = &b.inControl[i][0]
	}
	return b
}

// receive takes one batch, gives it to the handler and sends the answers.
func (b *batch) receive(s *packetSocket) {
	control := controlSize
	if !s.addr.Network.ip() {
		control = 0 // room would let any client put descriptors into our table
	}
	alone := s.singles.due(s.l.set.loop.Waits())
	n, call, errno := b.fill(s.fd, alone, unix.SizeofSockaddrAny, control)
	if errno != 0 {
		if errno != unix.EAGAIN && errno != unix.EINTR {
			s.l.stats.failed(call, errno)
		}
		if s.isLost(errno) {
			s.lose()
		}
		return // EAGAIN; ECONNREFUSED is an answer to an earlier datagram, and gone now
	}
	b.queue = b.queue[:0]
	count := 0
	for i := range n {
		rest := b.data[i*datagramSize:][:b.in[i].len]
		segment := 0
		b.peer = packetPeer{s: s, b: b, i: i}
		if b.in[i].hdr.Controllen > 0 {
			segment, b.peer.asked = readControl(b.inControl[i][:b.in[i].hdr.Controllen])
		}
		if b.in[i].hdr.Flags&unix.MSG_TRUNC != 0 { // the rest of it is lost
			s.l.stats.Received += uint64(len(rest))
			s.l.stats.reject(RejectedTooLong)
			count++
			continue
		}
		for more := true; more; more = rest != nil {
			b.peer.answered = 0
			b.peer.data, rest = nextSegment(rest, segment)
			s.l.stats.Received += uint64(len(b.peer.data))
			count++
			b.handle()
		}
	}
	s.l.stats.ReceivedDatagrams += uint64(count)
	s.singles.took(count, alone)
	b.pace(count)
	b.answer(s)
}

// answer sends what came of datagrams that were handled.
func (b *batch) answer(s *packetSocket) {
	if f, ok := inner(s.l.handler).(*forwarder); ok && len(f.burst.queue) > 0 {
		f.flush(b)
	}
	b.post(s, b.queue)
}

// post sends datagrams after those that wait.
func (b *batch) post(s *packetSocket, queue []outgoing) {
	switch {
	case len(queue) == 0 || s.fd < 0:
		return
	case len(s.unsent) > 0:
		s.keep(append(slices.Clone(s.unsent), queue...))
		return
	}
	if rest := b.send(s, queue); len(rest) > 0 {
		s.keep(rest)
		s.wantRoom()
	}
}

// handle gives the datagram in hand to the handler.
func (b *batch) handle() {
	l := b.peer.s.l
	if r := l.spec.Access.rules; r != nil && b.peer.s.addr.Network.ip() && !r.admitsIP(peerAddr(&b.names[b.peer.i]).Addr()) {
		l.stats.reject(RejectedAccess)
		return
	}
	if l.faults == (Faults{}) || !b.hinder() {
		b.offer()
	}
}

// offer is handle once the datagram is let in.
func (b *batch) offer() {
	l := b.peer.s.l
	if p := &l.spec.Proxy; p.Mode != ProxyOff && !b.peer.unwrap(p) {
		l.stats.reject(RejectedProxy)
		return
	}
	if err := b.give(l.handler); err != nil {
		l.stats.reject(RejectedHandler)
	}
}

// pace bounds what a turn does: a buffer may have one datagram, or 64.
func (b *batch) pace(count int) {
	if count > mostInTurn {
		b.take = max(b.take/2, batchSize/16)
	} else if b.take < batchSize {
		b.take = min(b.take*2, batchSize)
	}
}

// enqueue takes a datagram to be sent, unless a fault takes it.
func (b *batch) enqueue(s *packetSocket, o outgoing) {
	if s.l.faults == (Faults{}) || !s.hinder(o) {
		b.queue = append(b.queue, o)
	}
}

// relay takes one batch of what the upstream of a session answers, and sends it
// to the source.
func (b *batch) relay(ses *session) unix.Errno {
	s := ses.from.s
	control := 0
	if ses.gathers {
		control = controlSize
	}
	alone := ses.singles.due(s.l.set.loop.Waits())
	n, _, errno := b.fill(ses.fd, alone, 0, control)
	if errno != 0 {
		return errno
	}
	b.queue = b.queue[:0]
	count := 0
	for i := range n {
		if b.in[i].hdr.Flags&unix.MSG_TRUNC != 0 {
			s.l.stats.reject(RejectedTooLong)
			continue
		}
		rest, segment := b.data[i*datagramSize:][:b.in[i].len], 0
		if b.in[i].hdr.Controllen > 0 {
			segment, _ = readControl(b.inControl[i][:b.in[i].hdr.Controllen])
		}
		for more := true; more; more = rest != nil {
			o := outgoing{to: &ses.to, toLen: ses.toLen, control: ses.control}
			o.data, rest = nextSegment(rest, segment)
			count++
			b.enqueue(s, o)
		}
	}
	ses.singles.took(count, alone)
	b.pace(count)
	b.post(s, b.queue)
	return 0
}

// send gives the kernel what it takes, and returns the rest if it should be
// tried again. A datagram that cannot be sent is dropped and counted.
func (b *batch) send(s *packetSocket, queue []outgoing) (rest []outgoing) {
	together := s.together(queue)
	for len(queue) > 0 {
		sent, call, errno := b.empty(s.fd, queue, together)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && s.addr.Network.ip() && !s.lost:
			return queue
		case errno != 0 && b.runs[0] > 1 && together.refused(errno, queue[0].length()): // then one by one
		case errno != 0: // of the first; EAGAIN of a Unix socket: that peer's queue is full
			s.l.stats.failed(call, errno)
			for range b.runs[0] { // sent together, they are lost together
				s.l.stats.reject(RejectedSend)
			}
			queue = queue[b.runs[0]:]
			if errno != unix.EAGAIN && s.isLost(errno) {
				s.lose()
			}
		default:
			done := 0
			for _, n := range b.runs[:sent] {
				done += n
			}
			s.l.stats.SentDatagrams += uint64(done)
			s.l.stir()
			for i := range queue[:done] {
				s.l.stats.Sent += uint64(len(queue[i].data))
			}
			queue = queue[done:]
		}
	}
	return nil
}

// replyFrom turns the control message that tells where a datagram was sent to
// into one that makes the answer leave from there. It is empty for a socket
// that is bound to one address.
func replyFrom(in, out []byte) []byte {
	if len(in) < unix.SizeofCmsghdr {
		return nil
	}
	hdr := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(in)))
	size := copy(out, in)
	body := out[unix.CmsgLen(0):size]
	switch {
	case hdr.Level == unix.IPPROTO_IP && hdr.Type == unix.IP_PKTINFO && len(body) >= unix.SizeofInet4Pktinfo:
		// in_pktinfo: ifindex, spec_dst, addr. Without the interface the
		// kernel routes as usual; spec_dst is already the local address.
		clear(body[:4])
		clear(body[8:12])
	case hdr.Level == unix.IPPROTO_IPV6 && hdr.Type == unix.IPV6_PKTINFO && len(body) >= unix.SizeofInet6Pktinfo:
		// in6_pktinfo: addr, ifindex. Only a link-local address needs the
		// interface.
		switch to := netip.AddrFrom16([16]byte(body)); {
		case to.Is4In6() && to.Unmap().IsMulticast():
			return nil // a group cannot answer: the kernel chooses an address
		case to.IsMulticast():
			clear(body[:16]) // the same, of that interface
		case binary.BigEndian.Uint16(body)&0xffc0 != 0xfe80:
			clear(body[16:20])
		}
	default:
		return nil
	}
	return out[:size]
}
