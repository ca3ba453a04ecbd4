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
	controlSize  = 64       // one IP_PKTINFO or IPV6_PKTINFO, with room
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
	outIov     [batchSize][2]unix.Iovec // a header, if there is one, and the data
	outControl [batchSize][controlSize]byte
}

func newBatch() *batch {
	b := &batch{data: make([]byte, batchSize*datagramSize), queue: make([]outgoing, 0, batchSize)}
	for i := range b.in {
		b.inIov[i].Base = &b.data[i*datagramSize]
		b.inIov[i].SetLen(datagramSize)
		b.in[i].hdr.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		b.in[i].hdr.Iov = &b.inIov[i]
		b.in[i].hdr.SetIovlen(1)
		b.in[i].hdr.Control = &b.inControl[i][0]
		b.out[i].hdr.Iov = &b.outIov[i][0]
	}
	return b
}

// receive takes one batch, gives it to the handler and sends the answers.
func (b *batch) receive(s *packetSocket) {
	control := controlSize
	if !s.addr.Network.ip() {
		control = 0 // room would let any client put descriptors into our table
	}
	for i := range b.in {
		b.in[i].hdr.Namelen = unix.SizeofSockaddrAny
		b.in[i].hdr.SetControllen(control)
	}
	n, errno := sysMmsg(unix.SYS_RECVMMSG, s.fd, b.in[:])
	if errno != 0 {
		if errno != unix.EAGAIN && errno != unix.EINTR {
			s.l.stats.failed("recvmmsg", errno)
		}
		return // EAGAIN; ECONNREFUSED is an answer to an earlier datagram, and gone now
	}
	s.l.stats.ReceivedDatagrams += uint64(n)
	b.queue = b.queue[:0]
	for i := range n {
		data := b.data[i*datagramSize:][:b.in[i].len]
		s.l.stats.Received += uint64(len(data))
		if b.in[i].hdr.Flags&unix.MSG_TRUNC != 0 {
			s.l.stats.reject(RejectedTooLong) // the rest of it is lost
			continue
		}
		if r := s.l.spec.Access.rules; r != nil && s.addr.Network.ip() && !r.admitsIP(peerAddr(&b.names[i]).Addr()) {
			s.l.stats.reject(RejectedAccess)
			continue
		}
		b.peer = packetPeer{s: s, b: b, i: i, data: data}
		if p := &s.l.spec.Proxy; p.Mode != ProxyOff && !b.peer.unwrap(p) {
			s.l.stats.reject(RejectedProxy)
			continue
		}
		if _, err := s.l.handler.Handle(&b.peer, b.peer.data); err != nil {
			s.l.stats.reject(RejectedHandler)
		}
	}
	if f, ok := inner(s.l.handler).(*forwarder); ok && f.burst.n > 0 {
		f.flush(b)
	}
	if len(b.queue) == 0 {
		return
	}
	if rest := b.send(s, b.queue); len(rest) > 0 {
		s.keep(rest)
		s.wantRoom()
	}
}

// relay takes one batch of what the upstream of a session answers, and sends it
// to the source.
func (b *batch) relay(ses *session) unix.Errno {
	s := ses.from.s
	for i := range b.in {
		b.in[i].hdr.Namelen = 0
		b.in[i].hdr.SetControllen(0)
	}
	n, errno := sysMmsg(unix.SYS_RECVMMSG, ses.fd, b.in[:])
	if errno != 0 {
		return errno
	}
	b.queue = b.queue[:0]
	for i := range n {
		if b.in[i].hdr.Flags&unix.MSG_TRUNC != 0 {
			s.l.stats.reject(RejectedTooLong)
			continue
		}
		b.queue = append(b.queue, outgoing{to: &ses.to, toLen: ses.toLen, control: ses.control, data: b.data[i*datagramSize:][:b.in[i].len]})
	}
	if len(s.unsent) > 0 { // they come after what waits
		s.keep(append(slices.Clone(s.unsent), b.queue...))
		return 0
	}
	if rest := b.send(s, b.queue); len(rest) > 0 {
		s.keep(rest)
		s.wantRoom()
	}
	return 0
}

// send gives the kernel what it takes, and returns the rest if it should be
// tried again. A datagram that cannot be sent is dropped and counted.
func (b *batch) send(s *packetSocket, queue []outgoing) (rest []outgoing) {
	for len(queue) > 0 {
		n := min(len(queue), batchSize)
		for i, o := range queue[:n] {
			hdr := &b.out[i].hdr
			hdr.Name, hdr.Namelen = (*byte)(unsafe.Pointer(o.to)), o.toLen
			hdr.Control = unsafe.SliceData(o.control)
			hdr.SetControllen(len(o.control))
			b.carry(i, nil, o.data)
		}
		sent, errno := sysMmsg(unix.SYS_SENDMMSG, s.fd, b.out[:n])
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && s.addr.Network.ip():
			return queue
		case errno != 0: // of the first; EAGAIN of a Unix socket: that peer's queue is full
			s.l.stats.failed("sendmmsg", errno)
			s.l.stats.reject(RejectedSend)
			queue = queue[1:]
		default:
			s.l.stats.SentDatagrams += uint64(sent)
			for _, o := range queue[:sent] {
				s.l.stats.Sent += uint64(len(o.data))
			}
			queue = queue[sent:]
		}
	}
	return nil
}

// carry makes the i-th that is sent carry data, after a header if there is one.
func (b *batch) carry(i int, header, data []byte) {
	iov := &b.outIov[i]
	n := 0
	if len(header) > 0 {
		iov[0].Base = unsafe.SliceData(header)
		iov[0].SetLen(len(header))
		n = 1
	}
	iov[n].Base = unsafe.SliceData(data)
	iov[n].SetLen(len(data))
	b.out[i].hdr.SetIovlen(n + 1)
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
