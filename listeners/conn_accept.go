package listeners

import (
	"errors"
	"net/netip"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// An admission is a connection that was accepted, on its way to the loop that
// will serve it.
type admission struct {
	socket  *streamSocket // that accepted it; nil on another loop than its
	fd      int
	family  uint8
	packets bool
	remote  netip.AddrPort
	at      time.Duration // when it was accepted
	origin  *origin       // that has counted it in; nil: none yet
}

// admit makes a connection of an accepted descriptor, here or on another loop.
func (l *Listener) admit(fd int, s *streamSocket, from *unix.RawSockaddrAny) {
	a := admission{socket: s, fd: fd, family: uint8(s.family), packets: s.addr.Network == Unixpacket, remote: peerAddr(from), at: l.set.loop.Clock()}
	if l.spreads == atAccept && l.sendOut(a) {
		return
	}
	l.take(a)
}

// take makes the connection here.
func (l *Listener) take(a admission) {
	fd := a.fd
	c := &conn{
		l: l, handler: l.handler, fd: int32(fd), family: a.family, want: mux.Readable,
		remote: a.remote, opened: a.at, active: a.at,
	}
	if a.packets {
		c.flags |= packets
	}
	if l.lingers {
		c.flags |= lingers
	}
	for _, s := range l.onConn {
		if s.networks&c.network().Class() != 0 && s.option.isFor(c.socket()) {
			_ = s.option.Set(c.socket(), s.value) // the listener's socket took it; Status tells what came of it
		}
	}
	if err := l.set.loop.Add(fd, mux.Readable, c); err != nil {
		l.stats.reject(RejectedLimit)
		c.stopLinger()
		sysClose(fd)
		l.set.log.Warn("connection refused", "listener", l.Name, "error", err)
		if l.whole != nil {
			l.tellDeparture(departure{origin: a.origin})
		}
		return
	}
	l.admitted(c, a.socket)
	switch {
	case a.origin != nil:
		c.rarely().origin = a.origin
	case l.tunables.MaxPerSource > 0 && l.whole == nil:
		c.joinOrigin()
	}
	if l.faults != (Faults{}) {
		c.startFaults()
	}
	c.startPace()
	if l.set.slow.narrow {
		c.setWidth()
	}
	if w := l.set.watcher; w != nil {
		w.ConnOpened(c.status(0))
	}
	if p := &l.spec.Proxy; p.Mode != ProxyOff && (p.Mode == ProxyRequired || p.believes(c.remote.Addr())) {
		c.handler = &preface{next: l.handler}
		c.deadline = l.set.loop.Clock() + orDefault(p.Timeout, defaultProxyWait)
		if !p.believes(c.remote.Addr()) {
			c.settle(nil, c.rejectPreface(errors.New("the peer is not trusted to send it")))
		}
	} else {
		c.settle(nil, c.openHandler(nil))
	}
	if c.fd < 0 {
		return
	}
	c.arm()
	if l.state == Draining && !l.drain.lame {
		c.drain()
	}
}

// openHandler lets the handler begin with the connection, of which rest was read.
func (c *conn) openHandler(rest []byte) error {
	if c.l.tunables.Durability > 0 {
		c.endure(rest)
	}
	return c.begin()
}

// begin has the handler begin.
func (c *conn) begin() error {
	o, ok := c.handler.(Opener)
	if !ok {
		return nil
	}
	h, err := c.open(o)
	if h != nil {
		c.handler = h
	}
	if _, ok := c.handler.(Feeder); ok {
		c.flags |= feeds
	}
	return err
}

// peerAddr reads what accept4 returned. Never ask getpeername: Linux hands out
// connections that were reset in the queue.
func peerAddr(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), ntohs(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		ip := netip.AddrFrom16(in.Addr).Unmap()
		if in.Scope_id != 0 { // of a link-local address; a name would have to be looked up
			ip = ip.WithZone(strconv.Itoa(int(in.Scope_id)))
		}
		return netip.AddrPortFrom(ip, ntohs(in.Port))
	}
	return netip.AddrPort{} // a Unix client rarely has a name
}

// peerName is the peer's address with the name of its zone, as getsockname has
// it: accept did not look that up.
func (c *conn) peerName() netip.AddrPort { return withZoneName(c.remote) }

// withZoneName has the name of the zone for its number.
func withZoneName(a netip.AddrPort) netip.AddrPort {
	ip := a.Addr()
	zone, err := strconv.ParseUint(ip.Zone(), 10, 32)
	if err != nil { // there is none
		return a
	}
	return netip.AddrPortFrom(withZone(ip.WithZone(""), uint32(zone)), a.Port())
}

// ntohs is htons as well.
func ntohs(n uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&n))
	return uint16(b[0])<<8 | uint16(b[1])
}
