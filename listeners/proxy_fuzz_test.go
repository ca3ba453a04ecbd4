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
