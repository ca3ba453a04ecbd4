package listeners

import (
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// proxyHeader is what an upstream is told of a client. Of a Unix client there is
// nothing to tell: UNKNOWN, or LOCAL.
func proxyHeader(c *conn, version byte) []byte {
	h := &proxyproto.Header{Version: version, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	src, dst := c.source(), c.socket().local().IP
	if src.IsValid() && dst.IsValid() {
		// The two must be of one family.
		if src.Addr().Is4() != dst.Addr().Is4() {
			dst = sameFamily(dst, src)
		}
		h = proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(src), net.TCPAddrFromAddrPort(dst))
	}
	data, err := h.Format()
	if err != nil {
		c.l.set.log.Error("cannot make a PROXY header", "listener", c.l.Name, "source", src, "destination", dst, "error", err)
	}
	return data
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
