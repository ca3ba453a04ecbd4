package listeners

import (
	"bufio"
	"bytes"
	"net"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"
)

// FuzzDatagramHeader compares with another reader: what both take is from the
// same source, and as long.
func FuzzDatagramHeader(f *testing.F) {
	for _, kind := range []string{"\x21\x12\x00\x0c", "\x21\x22\x00\x24", "\x20\x00\x00\x00", "\x21\x31\x00\xd8", "\x11\x12\x00\x0c"} {
		f.Add([]byte(proxyV2Start + kind + string(make([]byte, 216))))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		src, size, err := datagramHeader(p)
		if err != nil {
			return
		}
		if size > len(p) {
			t.Fatalf("%d of %d bytes", size, len(p))
		}
		r := bytes.NewReader(p)
		b := bufio.NewReaderSize(r, 16)
		h, err := proxyproto.Read(b)
		if err != nil || !src.IsValid() {
			return
		}
		want := h.SourceAddr
		switch a := want.(type) {
		case *net.UDPAddr:
			if a.AddrPort().Port() != src.Port() || a.AddrPort().Addr().Unmap() != src.Addr() {
				t.Fatalf("%v, want %v", src, want)
			}
		case *net.TCPAddr:
			if a.AddrPort().Port() != src.Port() || a.AddrPort().Addr().Unmap() != src.Addr() {
				t.Fatalf("%v, want %v", src, want)
			}
		default:
			t.Fatalf("%v, want %v", src, want)
		}
		if read := len(p) - r.Len() - b.Buffered(); read != size {
			t.Fatalf("%d bytes, want %d", size, read)
		}
	})
}

// FuzzProxyHeader: how long a header is does not depend on how it comes in
// pieces, is bounded, and is what another reader takes off.
func FuzzProxyHeader(f *testing.F) {
	for _, text := range []string{
		"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nrest", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::1 1 2\r\n", "PROXY TCP4 1.2.3.4\r\n", "PROXY \r\r\n", "PRO", "GET / HTTP/1.1\r\n",
		proxyV2Start + "\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x09\x00\x0arest", proxyV2Start + "\x20\x00\x00\x00", proxyV2Start + "\x21\x21\xff\xff",
		proxyV2Start + "\x21\x21\x00\x27" + string(make([]byte, 39)), "PROXY TCP4 " + string(make([]byte, 100)),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		size, err := proxyHeaderSize(p)
		if size > len(p) || size > proxyV2Head+maxProxyV2 || err != nil && size != 0 {
			t.Fatalf("%d of %d bytes, %v", size, len(p), err)
		}
		for n := range min(len(p), 300) {
			early, errEarly := proxyHeaderSize(p[:n])
			switch {
			case early == 0 && errEarly == nil: // more is needed
			case early != size || (errEarly == nil) != (err == nil):
				t.Fatalf("after %d bytes it is %d, %v; after all %d, %v", n, early, errEarly, size, err)
			}
		}
		if size == 0 {
			return
		}
		header, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(p[:size]), size))
		if err != nil {
			return // the connection is closed, with the reason
		}
		if src, ok := addrPortOf(header); ok && (!src.Addr().IsValid() || src.Addr().Is4In6()) {
			t.Errorf("%v is no source", src)
		}
		r := bytes.NewReader(p)
		b := bufio.NewReaderSize(r, len(p)+16)
		if _, err := proxyproto.Read(b); err != nil || len(p)-r.Len()-b.Buffered() != size {
			t.Errorf("%d bytes; another reader takes %d, %v", size, len(p)-r.Len()-b.Buffered(), err)
		}
	})
}
