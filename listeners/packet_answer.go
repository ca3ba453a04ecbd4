package listeners

import (
	"hash/maphash"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Who a datagram of UDP is from nobody can tell: one forged datagram is enough
// to have two services answer each other for ever (CVE-2024-2169), and many of
// them make a service send to a victim what others have asked for. So
//
//	to whom   not to ports of well-known services, a port of our own, many at once
//	how much  not more than was asked with, or udp.max_reply_bytes
//	how often udp.reply_rate to one network
//
// answerTo is of the first.
func (s *packetSocket) answerTo(name *unix.RawSockaddrAny, size uint32) (from netip.AddrPort, ok bool) {
	if !s.addr.Network.ip() {
		return from, size > unix.SizeofShort // a sender without a name cannot be reached
	}
	from = peerAddr(name)
	ip, port := from.Addr(), from.Port()
	return from, port >= 1024 && s.l.set.udpPorts[port] == 0 && !ip.IsMulticast() && !ip.IsUnspecified() &&
		ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// mayAnswer counts what may not be sent.
func (p *packetPeer) mayAnswer(size int) bool {
	s := p.s
	from, ok := s.answerTo(&p.b.names[p.i], p.b.in[p.i].hdr.Namelen)
	if !ok {
		s.l.stats.reject(RejectedUnanswerable)
		return false
	}
	if !s.addr.Network.ip() { // the kernel knows who it is from
		return true
	}
	t := &s.l.tunables
	if p.answered += size; p.answered > max(len(p.data), int(t.MaxReply)) {
		s.l.stats.reject(RejectedAmplifies)
		return false
	}
	// From loopback nobody else can send: the kernel drops what comes from
	// elsewhere with such an address.
	if t.ReplyRate == 0 || from.Addr().IsLoopback() || s.l.set.answers.take(from.Addr(), s.l.set.loop.Clock(), t.ReplyRate) {
		return true
	}
	s.l.stats.reject(RejectedReplyRate)
	return false
}

// answerCells is how many networks can be told from each other: the table does
// not grow. Those that share a cell share its rate; which ones do nobody can
// choose.
const answerCells = 1 << 13

// answerSpan is how long nothing must have been answered for the full rate to be
// there at once.
const answerSpan = time.Second

// An answerTable bounds how often each network is answered. Loop only.
type answerTable struct {
	seed  maphash.Seed
	cells []bucket // nil: nobody was answered
}

// take reports whether a network may be answered once more.
func (a *answerTable) take(to netip.Addr, now time.Duration, rate int64) bool {
	if a.cells == nil {
		a.seed, a.cells = maphash.MakeSeed(), make([]bucket, answerCells)
	}
	bits := 64
	if to.Is4() {
		bits = 24
	}
	network, err := to.WithZone("").Prefix(bits)
	if err != nil {
		return false
	}
	cell := &a.cells[maphash.Comparable(a.seed, network)%answerCells]
	cost := time.Second / time.Duration(rate)
	if !cell.has(now, cost, answerSpan) {
		return false
	}
	cell.take(now, cost)
	return true
}
