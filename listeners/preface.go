package listeners

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// Why a connection was closed before its handler had it.
var errProxyHeader = errors.New("PROXY protocol")

const (
	maxProxyV1   = 107     // with the end of the line (the specification, 2.1)
	proxyV2Head  = 16      // before the addresses (2.2)
	maxProxyV2   = 4 << 10 // of addresses and TLVs; those in use take some hundred
	proxyV1Start = "PROXY "
	proxyV2Start = "\r\n\r\n\x00\r\nQUIT\n"
)

// A preface is the Handler of a connection until its PROXY header was read.
type preface struct {
	next Handler // whose the connection will be
}

// Handle looks for the header.
func (f *preface) Handle(from Peer, p []byte) (int, error) {
	c := from.(*conn)
	policy := &c.l.spec.Proxy
	size, err := proxyHeaderSize(p)
	if size == 0 && err == nil {
		return 0, nil // more of it will come
	}
	var header *proxyproto.Header
	if err == nil && size > 0 {
		header, err = proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(p[:size]), size))
	}
	switch {
	case errors.Is(err, errNoHeader) && policy.Mode == ProxyOptional:
		return 0, f.begin(c, p)
	case err != nil:
		return 0, c.rejectPreface(err)
	}
	if header.Command.IsProxy() { // LOCAL is the proxy's own check: it speaks for itself
		if src, ok := addrPortOf(header); ok {
			c.rarely().proxied = src
		}
	}
	if err := f.begin(c, p[size:]); err != nil {
		return size, err
	}
	return size, nil
}

// addrPortOf is the source in a header, if it is an IP address.
func addrPortOf(h *proxyproto.Header) (netip.AddrPort, bool) {
	src, _, ok := h.TCPAddrs()
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := src.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

var errNoHeader = errors.New("there is no header")

// proxyHeaderSize is how long the header is that p begins with; 0 when more is
// needed to tell.
func proxyHeaderSize(p []byte) (int, error) {
	switch {
	case bytes.HasPrefix(p, []byte(proxyV1Start)):
		end := bytes.Index(p[:min(len(p), maxProxyV1)], []byte("\r\n"))
		if end < 0 && len(p) >= maxProxyV1 {
			return 0, fmt.Errorf("a header of version 1 has no end within %d bytes", maxProxyV1)
		}
		if end < 0 {
			return 0, nil
		}
		return end + 2, nil
	case bytes.HasPrefix(p, []byte(proxyV2Start)):
		if len(p) < proxyV2Head {
			return 0, nil
		}
		n := int(binary.BigEndian.Uint16(p[14:]))
		if n > maxProxyV2 {
			return 0, fmt.Errorf("a header of version 2 with %d bytes is too long; at most %d are read", n, maxProxyV2)
		}
		if len(p) < proxyV2Head+n {
			return 0, nil
		}
		return proxyV2Head + n, nil
	case len(p) < len(proxyV2Start) && (bytes.HasPrefix([]byte(proxyV1Start), p) || bytes.HasPrefix([]byte(proxyV2Start), p)):
		return 0, nil
	default:
		return 0, errNoHeader
	}
}

// Expired is the end of the wait for the header.
func (f *preface) Expired(p Peer) error {
	c := p.(*conn)
	if c.l.spec.Proxy.Mode == ProxyOptional && len(c.input()) == 0 {
		return f.begin(c, nil) // who waits for us to speak first
	}
	return c.rejectPreface(errors.New("no header came in time"))
}

// begin gives the connection to its handler, with what came after the header.
func (f *preface) begin(c *conn, rest []byte) error {
	c.deadline = 0
	c.handler = f.next
	return c.openHandler(rest)
}

// rejectPreface counts a connection that is closed for want of a good header.
// The first is logged: a proxy may be set up otherwise than the listener.
func (c *conn) rejectPreface(why error) error {
	c.l.stats.reject(RejectedProxy)
	if c.l.stats.RejectedBy[RejectedProxy] == 1 {
		c.l.set.log.Warn("connection closed for want of a good PROXY header; further ones are only counted", "listener", c.l.Name, "remote", c.remote, "error", why)
	}
	return fmt.Errorf("%w: %w", errProxyHeader, why)
}

// source is who the connection is from: who a header says, or else the peer.
func (c *conn) source() netip.AddrPort {
	if c.rare != nil && c.rare.proxied.IsValid() {
		return c.rare.proxied
	}
	return c.remote
}
