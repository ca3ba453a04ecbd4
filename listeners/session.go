package listeners

import (
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A source is who sends datagrams, and to which socket of ours.
type source struct {
	s    *packetSocket
	ip   netip.AddrPort
	name string // of a Unix socket

	proxied netip.AddrPort // who a PROXY header says it is from
}

// client is who it is: who a header says, or else who the kernel says.
func (s source) client() netip.AddrPort {
	if s.proxied.IsValid() {
		return s.proxied
	}
	return s.ip
}

// A session is one source of datagrams and the socket through which it talks to
// its upstream. Loop only.
type session struct {
	f      *forwarder
	from   source
	up     *upstream
	fd     int
	active time.Duration // when a datagram last passed
	timer  mux.Timer

	to      unix.RawSockaddrAny // the source, as the kernel has it
	toLen   uint32
	control []byte // which address of ours answers
	header  []byte // of the PROXY protocol, before each datagram

	hop *hop
	out outlet // of fd

	segments segments
	singles  singles
	gathers  bool // datagrams from the upstream may come as one buffer
}

// A burst is what came in a row from one source, and goes on in one call. It is
// in the batch's room for what is sent, and empty between two batches.
type burst struct {
	ses   *session
	queue []outgoing
}

// Handle takes a datagram of a source for its upstream: flush sends it.
func (f *forwarder) Handle(from Peer, p []byte) (int, error) {
	peer := from.(*packetPeer)
	key := peer.source()
	if len(f.burst.queue) > 0 && f.burst.ses.from != key {
		f.flush(peer.b)
	}
	if len(f.burst.queue) == 0 {
		if f.burst.ses = f.sessionOf(peer, key); f.burst.ses == nil {
			return len(p), errNoUpstream
		}
	}
	f.burst.queue = append(f.burst.queue, outgoing{header: f.burst.ses.header, data: p})
	return len(p), nil
}

func (f *forwarder) sessionOf(peer *packetPeer, key source) *session {
	if ses := f.sessions[key]; ses != nil {
		return ses
	}
	return f.openSession(peer, key)
}

// flush sends the burst. A datagram that is not taken is dropped and counted, as
// datagrams may be.
func (f *forwarder) flush(b *batch) {
	ses, queue := f.burst.ses, f.burst.queue
	f.burst.ses, f.burst.queue = nil, queue[:0]
	for len(queue) > 0 {
		ses.active = f.l.set.loop.Clock()
		sent, _, errno := b.empty(ses.fd, queue, &ses.segments)
		switch {
		case errno == 0:
			for _, n := range b.runs[:sent] {
				queue = queue[n:]
			}
		case errno == unix.EINTR:
		case errno == unix.ECONNREFUSED: // an answer to an earlier one: nobody is there
			for range queue {
				f.l.stats.reject(RejectedHandler)
			}
			ses.end()
			ses.up.refused("send: "+errnoText(errno), ses.active)
			return // what comes next opens another
		case b.runs[0] > 1 && ses.segments.refused(errno, queue[0].length()): // then one by one
		default: // of the first; sent together, they are lost together
			for range b.runs[0] {
				f.l.stats.reject(RejectedHandler)
			}
			queue = queue[b.runs[0]:]
		}
	}
}

// source is who sent the datagram in hand.
func (p *packetPeer) source() source {
	name := &p.b.names[p.i]
	if p.s.addr.Network.ip() {
		return source{s: p.s, ip: peerAddr(name), proxied: p.proxied}
	}
	return source{s: p.s, name: unixName(name, p.b.in[p.i].hdr.Namelen), proxied: p.proxied}
}

// unixName is the path or abstract name in a sockaddr_un.
func unixName(sa *unix.RawSockaddrAny, size uint32) string {
	const offset = 2 // sun_family
	if size <= offset {
		return ""
	}
	raw := (*[unix.SizeofSockaddrAny]byte)(unsafe.Pointer(sa))
	return string(raw[offset:min(int(size), len(raw))])
}

// openSession connects a socket to an upstream; nil when there is none, or the
// bound on sessions is reached.
func (f *forwarder) openSession(peer *packetPeer, key source) *session {
	l, set := f.l, f.l.set
	if most := l.tunables.MaxSessions; int64(len(f.sessions)) >= most || set.full() {
		l.stats.reject(RejectedLimit)
		return nil
	}
	way, err := set.follow(datagramOutlet(key.ip, key.name), l)
	if err != nil {
		l.tellLoop(err)
		return nil
	}
	now := set.loop.Clock()
	var tried []*upstream
	for {
		up := f.pools[0].choose(key.client().Addr(), now, tried)
		if up == nil {
			return nil
		}
		tried = append(tried, up)
		a, _ := up.next() // it is usable
		fd, err := set.dialPacket(a)
		ses := &session{f: f, from: key, up: up, fd: fd, active: now, to: peer.b.names[peer.i], toLen: peer.b.in[peer.i].hdr.Namelen}
		if err == nil {
			if err = set.loop.Add(fd, mux.Readable, ses); err != nil {
				sysClose(fd)
			}
		}
		if err != nil {
			up.refused(connectText(err), now)
			continue
		}
		ses.control = slices.Clone(peer.answerFrom())
		if a.Network.ip() {
			ses.segments.most = mostTogether
			ses.gathers = true
			gather(fd, 1)
		}
		if f.spec.SendProxy > 0 {
			ses.header = ses.proxyHeader()
		}
		ses.hop, ses.out = way, set.goesOut(fd, a, way)
		set.used++
		up.active++
		up.connects++ // whether it is there, its answer tells
		f.sessions[key] = ses
		ses.arm()
		return ses
	}
}

// dialPacket connects a datagram socket. A Unix one gets a name, or it could
// not be answered.
func (s *Set) dialPacket(a Address) (int, error) {
	if a.Network.ip() {
		fd, _, err := s.dialTo(a)
		return fd, err
	}
	if err := s.MayConnect(a); err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{}); err == nil { // autobind: an abstract name
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: a.Path})
	}
	if err != nil {
		sysClose(fd)
		return -1, err
	}
	return fd, nil
}

// Ready relays what the upstream answers.
func (ses *session) Ready(mux.Events) {
	s := ses.from.s
	if s.fd < 0 {
		ses.end()
		return
	}
	switch errno := s.l.set.batch.relay(ses); errno {
	case 0:
		ses.active = s.l.set.loop.Clock()
		ses.up.answered()
	case unix.EAGAIN, unix.EINTR:
	default: // ECONNREFUSED: nobody is there
		ses.end()
		ses.up.refused("receive: "+errnoText(errno), s.l.set.loop.Clock())
	}
}

// arm is lazy, as of connections: a limit that moves costs nothing.
func (ses *session) arm() {
	set := ses.f.l.set
	set.loop.Arm(&ses.timer, ses.active+max(ses.f.l.tunables.SessionTimeout, time.Second), ses)
}

// Expired ends a session in which nothing has happened.
func (ses *session) Expired() {
	l := ses.f.l
	if l.set.loop.Clock() >= ses.active+max(l.tunables.SessionTimeout, time.Second) {
		ses.end()
		return
	}
	ses.arm()
}

func (ses *session) end() {
	if ses.fd < 0 {
		return
	}
	set := ses.f.l.set
	set.loop.Disarm(&ses.timer)
	_ = set.loop.Remove(ses.fd) // before the close, as always
	sysClose(ses.fd)
	ses.fd = -1
	set.closedOut(ses.out, ses.hop)
	ses.up.active--
	delete(ses.f.sessions, ses.from)
	set.released()
}

// endSessions ends those of a socket, or all.
func (f *forwarder) endSessions(s *packetSocket) {
	for _, ses := range f.sessions {
		if s == nil || ses.from.s == s {
			ses.end()
		}
	}
}
