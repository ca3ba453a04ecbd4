package listeners

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
)

// Bytes that addresses take in a header of version 2 (2.2).
const (
	proxyV2Inet  = 4 + 4 + 2 + 2
	proxyV2Inet6 = 16 + 16 + 2 + 2
)

var errCutHeader = errors.New("the header is malformed")

// datagramHeader reads the header of version 2 that a datagram begins with: how
// long it is, and who it is from, if it says so. The specification leaves open
// which datagrams have one; here, as with dnsdist and its peers, all have, so
// that none depends on an earlier one.
func datagramHeader(p []byte) (src netip.AddrPort, size int, err error) {
	if !bytes.HasPrefix(p, []byte(proxyV2Start)) {
		return src, 0, errNoHeader
	}
	if len(p) < proxyV2Head {
		return src, 0, errCutHeader
	}
	version, command, family := p[12]>>4, p[12]&0xf, p[13]>>4
	body := p[proxyV2Head:]
	size = int(binary.BigEndian.Uint16(p[14:]))
	if version != 2 || command > 1 || size > len(body) {
		return src, 0, errCutHeader
	}
	body = body[:size]
	switch {
	case command == 0: // LOCAL is the proxy's own check
	case family == 1 && size >= proxyV2Inet:
		src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:]))
	case family == 2 && size >= proxyV2Inet6:
		src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)).Unmap(), binary.BigEndian.Uint16(body[32:]))
	case family == 1 || family == 2:
		return src, 0, errCutHeader
	}
	return src, proxyV2Head + size, nil
}

// unwrap takes the header off a datagram. It is not ok if there should be one
// and is none, or none that counts.
func (p ProxyPolicy) unwrap(from netip.Addr, data []byte) (rest []byte, src netip.AddrPort, ok bool) {
	if !p.believes(from) {
		return data, src, p.Mode == ProxyOptional
	}
	src, size, err := datagramHeader(data)
	if err != nil {
		return data, src, p.Mode == ProxyOptional && errors.Is(err, errNoHeader)
	}
	return data[size:], src, true
}
