package listeners_test

import (
	"bytes"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// With udp.segment_bytes the kernel cuts a long answer into datagrams.
func TestSegments(t *testing.T) {
	for _, uri := range []string{"udp4://127.0.0.1:0", "udp6://[::1]:0"} {
		h := newHost(t, "epoll", 0)
		l := h.open(spec(t, listeners.Echo{}, "udp.segment_bytes=100", uri))
		c := dial(t, h.addr(l, 0))
		sent := bytes.Repeat([]byte("0123456789"), 25)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, want := range []int{100, 100, 50} {
			part := make([]byte, 1000)
			n, err := c.Read(part)
			if err != nil || n != want {
				t.Fatalf("%s: a datagram of %d bytes, %v, want %d", uri, n, err, want)
			}
			got = append(got, part[:n]...)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("%s: %q", uri, got)
		}
		h.tune(l, "udp.segment_bytes", "0")
		ask(t, c, sent)
	}
}
