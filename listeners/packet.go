package listeners

import (
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A packetSocket receives and answers datagrams, a batch for each readiness.
type packetSocket struct {
	*socket
	l       *Listener
	resting bool // off the loop: datagrams wait in the kernel
	paused  PauseMode
	unsent  []outgoing // what the kernel did not take; copies
	pending int        // bytes in unsent
	late    *late      // what a fault holds; nil: it never did

	segments segments
	singles  singles
}

// outgoing is one datagram to send. What it points to is good until the batch
// has been sent.
type outgoing struct {
	to      *unix.RawSockaddrAny
	toLen   uint32
	control []byte // which address to send from
	header  []byte // before the data; nil: none
	data    []byte
}

func (s *packetSocket) sock() *socket { return s.socket }

// retire goes on as before, with what it has if it was paused.
func (s *packetSocket) retire() {
	if s.lost {
		s.l.serveWaiting(s) // for as long as another had no place there, this one got what came
		s.stop()
		return
	}
	s.paused = NotPaused
	s.rise()
}

// join makes what all datagram sockets of a loop share.
func (s *packetSocket) join(set *Set) {
	if set.batch == nil {
		set.batch = newBatch()
		set.udpPorts = new([1 << 16]int32)
	}
	if s.addr.Network.ip() {
		set.udpPorts[s.addr.IP.Port()]++
		s.segments.most = mostTogether
		if s.l.passer() == nil {
			gather(s.fd, 1)
		}
	}
}

// stop closes; what waits in the kernel's buffer is lost, as datagrams may be.
func (s *packetSocket) stop() {
	if s.fd < 0 {
		return
	}
	set := s.l.set
	if s.addr.Network.ip() {
		set.udpPorts[s.addr.IP.Port()]--
	}
	if f, ok := inner(s.l.handler).(*forwarder); ok {
		f.endSessions(s)
	}
	s.unsent = nil
	if s.late != nil {
		s.late.drop()
	}
	s.rest()
	s.close()
	set.released()
	s.l.ended()
}

// Ready sends what is left over, and only then receives.
func (s *packetSocket) Ready(ev mux.Events) {
	s.l.stir()
	if len(s.unsent) > 0 {
		s.keep(s.l.set.batch.send(s, s.unsent))
		if len(s.unsent) > 0 {
			return
		}
		if s.paused != NotPaused || s.lost || s.l.failing != "" {
			s.rest()
			return
		}
		_ = s.l.set.loop.Modify(s.fd, mux.Readable) // it is there
	}
	if ev&mux.Readable != 0 {
		if x := s.l.passer(); x != nil {
			x.pass()
			return
		}
		s.l.set.batch.receive(s)
	}
}

// together is what is known of sending several as one. With udp.segment_bytes
// the kernel cuts, and not we.
func (s *packetSocket) together(queue []outgoing) *segments {
	if len(queue) > 1 && s.l.spec.Options[segmentBytes].Int() != 0 {
		return &s.l.set.batch.none
	}
	return &s.segments
}

// wantRoom waits until the kernel takes more, and receives nothing meanwhile.
func (s *packetSocket) wantRoom() {
	if err := s.l.set.loop.Modify(s.fd, mux.Writable); err != nil {
		s.unsent = nil
		s.l.set.log.Error("cannot wait to send", "listener", s.l.Name, "error", err)
	}
}

// keep copies what the kernel did not take, up to write_buffer_bytes; the rest
// is dropped and counted.
func (s *packetSocket) keep(rest []outgoing) {
	kept := make([]outgoing, 0, len(rest))
	s.pending = 0
	for _, o := range rest {
		if s.pending+len(o.data) > int(s.l.tunables.WriteBuffer) {
			s.l.stats.reject(RejectedBuffer)
			continue
		}
		s.pending += len(o.data)
		to := *o.to
		kept = append(kept, outgoing{to: &to, toLen: o.toLen, control: slices.Clone(o.control), data: slices.Clone(o.data)})
	}
	s.unsent = kept
}

// A packetPeer is the sender of the datagram in hand.
type packetPeer struct {
	s    *packetSocket
	b    *batch
	i    int // which of the batch
	data []byte

	answered int // bytes

	proxied netip.AddrPort // who a PROXY header says it is from
	asked   []byte         // the control message that tells where it was sent to; nil: there is none
	control []byte         // which address an answer leaves from, once that was asked for
}

// answerFrom is the control message that an answer is sent with.
func (p *packetPeer) answerFrom() []byte {
	if p.control == nil && p.asked != nil {
		p.control = replyFrom(p.asked, p.b.outControl[p.i][:])
	}
	return p.control
}

// unwrap takes a PROXY header off the datagram; it reports whether to go on.
func (p *packetPeer) unwrap(policy *ProxyPolicy) (ok bool) {
	var from netip.Addr
	if p.s.addr.Network.ip() {
		from = peerAddr(&p.b.names[p.i]).Addr()
	}
	p.data, p.proxied, ok = policy.unwrap(from, p.data)
	return ok
}

// Write is Peer.Write.
func (p *packetPeer) Write(data []byte) (int, error) {
	if len(data) > 0 && unsafe.SliceData(data) != unsafe.SliceData(p.data) {
		data = slices.Clone(data) // it is sent after the handler has returned
	}
	return len(data), p.WriteShared(data)
}

// WriteShared is Peer.WriteShared.
func (p *packetPeer) WriteShared(data []byte) error {
	if !p.mayAnswer(len(data)) {
		return nil
	}
	p.b.enqueue(p.s, outgoing{
		to: &p.b.names[p.i], toLen: p.b.in[p.i].hdr.Namelen, data: data, control: p.answerFrom(),
	})
	return nil
}

// Pending is Peer.Pending: datagrams never wait for their peer.
func (p *packetPeer) Pending() bool { return false }

// Now is Peer.Now.
func (p *packetPeer) Now() time.Time { return p.s.l.set.loop.Now() }

// SetDeadline is Peer.SetDeadline; datagrams have none.
func (p *packetPeer) SetDeadline(time.Time) {}

// Tunables is Peer.Tunables.
func (p *packetPeer) Tunables() *Tunables { return &p.s.l.tunables }
