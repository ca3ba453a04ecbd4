package listeners

import (
	"net"
	"net/netip"
	"unsafe"

	proxyproto "github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"
)

// proxyHeader is what an upstream is told of a client.
func proxyHeader(c *conn, version byte) []byte {
	return c.l.proxyHeader(version, c.source(), c.socket().local().IP, func(a netip.AddrPort) net.Addr { return net.TCPAddrFromAddrPort(a) })
}

// proxyHeader is what an upstream is told of a source of datagrams.
func (ses *session) proxyHeader() []byte {
	s := ses.from.s
	dst := s.local().IP
	if asked := askedIn(ses.control); asked.IsValid() {
		dst = netip.AddrPortFrom(asked, dst.Port())
	}
	return s.l.proxyHeader(byte(ses.f.spec.SendProxy), ses.from.client(), dst, func(a netip.AddrPort) net.Addr { return net.UDPAddrFromAddrPort(a) })
}

// proxyHeader tells of a client. Of a Unix one there is nothing to tell: UNKNOWN,
// or LOCAL.
func (l *Listener) proxyHeader(version byte, src, dst netip.AddrPort, typed func(netip.AddrPort) net.Addr) []byte {
	h := &proxyproto.Header{Version: version, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if src.IsValid() && dst.IsValid() {
		// The two must be of one family.
		if src.Addr().Is4() != dst.Addr().Is4() {
			dst = sameFamily(dst, src)
		}
		h = proxyproto.HeaderProxyFromAddrs(version, typed(src), typed(dst))
	}
	data, err := h.Format()
	if err != nil {
		l.set.log.Error("cannot make a PROXY header", "listener", l.Name, "source", src, "destination", dst, "error", err)
	}
	return data
}

// askedIn is the address that the control message of an answer is sent from.
func askedIn(control []byte) netip.Addr {
	if len(control) < unix.SizeofCmsghdr {
		return netip.Addr{}
	}
	hdr := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(control)))
	body := control[unix.CmsgLen(0):]
	switch {
	case hdr.Level == unix.IPPROTO_IP && len(body) >= unix.SizeofInet4Pktinfo:
		return netip.AddrFrom4([4]byte(body[4:])) // ipi_spec_dst
	case hdr.Level == unix.IPPROTO_IPV6 && len(body) >= unix.SizeofInet6Pktinfo:
		return netip.AddrFrom16([16]byte(body)).Unmap()
	default:
		return netip.Addr{}
	}
}

// sameFamily writes dst as src's family has it: of a socket of both versions the
// kernel tells the IPv6 form.
func sameFamily(dst, src netip.AddrPort) netip.AddrPort {
	ip := dst.Addr()
	if src.Addr().Is4() {
		ip = ip.Unmap()
		if !ip.Is4() {
			ip = netip.IPv4Unspecified()
		}
	} else {
		ip = netip.AddrFrom16(ip.As16())
	}
	return netip.AddrPortFrom(ip, dst.Port())
}
