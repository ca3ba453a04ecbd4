package listeners_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// What is no handshake is counted, and keeps nobody else from being served.
func TestTLSGarbage(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		a := newAuthority(t)
		l, counters := h.openCounted(withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), &listeners.TLSPolicy{
			Certificates: []listeners.TLSPair{a.issue("server", "example.com")}, Handshake: 150 * time.Millisecond,
		}))
		to := h.addr(l, 0)
		good := dialTLS(t, to, a.client())

		// A ClientHello of 100 KB, in records of the greatest size.
		var long bytes.Buffer
		body := append([]byte{1, 1, 0x90, 0}, make([]byte, 100<<10)...)
		for len(body) > 0 {
			n := min(len(body), 1<<14)
			long.Write([]byte{22, 3, 1, byte(n >> 8), byte(n)})
			long.Write(body[:n])
			body = body[n:]
		}
		bad := []string{
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "x", strings.Repeat("\x00", 70000), "\x16\x03\x01", "\x16\x03\x01\x40\x01\x01", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
			"\x17\x03\x03\x00\x01\x00", "\x15\x03\x01\x00\x02\x02\x28", long.String(),
		}
		for _, data := range bad {
			c := dial(t, to)
			io.WriteString(c, data)
			io.Copy(io.Discard, c) // until it is closed: perhaps with an alert before
			c.Close()
			echoesTLS(t, good, []byte("hello"))
		}
		// Who vanishes: before it has said anything it is none of ours; after that
		// it is one that failed.
		dial(t, to).Close()
		c := dial(t, to)
		io.WriteString(c, "\x16\x03\x01\x01")
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
		c = dial(t, to)
		io.WriteString(c, "\x16\x03\x01\x01")
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		silent := dial(t, to)
		io.Copy(io.Discard, silent)
		want := uint64(len(bad) + 2)
		eventually(t, func() bool { return h.status(l).Active == 1 }, func() string { return "still open" })
		by := counters()
		if got := by.RejectedBy[listeners.RejectedTLS]; got != want {
			t.Errorf("%d rejected, want %d", got, want)
		}
		if got := by.ClosedBy[listeners.ClosedByTLS]; got != want {
			t.Errorf("%d closed because of it, want %d: %v", got, want, by.ClosedBy)
		}
		if by.ClosedBy[listeners.ClosedByPeer] != 1 || by.ClosedBy[listeners.ClosedByReset] != 1 {
			t.Errorf("closed: %v", by.ClosedBy)
		}
		echoesTLS(t, good, []byte("hello"))
	})
}

// recorder notes what kinds of records arrive.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	text []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	r.text = append(r.text, p[:n]...)
	r.mu.Unlock()
	return n, err
}

// last is the kind of the last record that is whole.
func (r *recorder) last() (kind byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := r.text; len(p) >= 5; p = p[min(5+int(p[3])<<8+int(p[4]), len(p)):] {
		kind = p[0]
	}
	return kind
}

const alertRecord = 21 // as is close_notify, which 1.2 does not hide

// Each side may end alone: close_notify goes through, both ways, and is sent at
// the end.
func TestTLSHalfClose(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		a := newAuthority(t)
		policy := &listeners.TLSPolicy{Certificates: []listeners.TLSPair{a.issue("server", "example.com")}}
		config := a.client()
		config.MaxVersion = tls.VersionTLS12
		open := func(l *listeners.Listener) (*tls.Conn, *recorder) {
			r := &recorder{Conn: dial(t, h.addr(l, 0))}
			c := tls.Client(r, config)
			if err := c.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			return c, r
		}
		data := bytes.Repeat([]byte("x"), 300000)
		echo := h.open(withTLS(t, spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"), policy))
		c, r := open(echo)
		go func() {
			c.Write(data)
			c.CloseWrite()
		}()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) || r.last() != alertRecord {
			t.Errorf("echo: %d bytes, %v, last record %d", len(got), err, r.last())
		}
		reply := h.open(withTLS(t, spec(t, &listeners.Reply{Payload: data}, "", "tcp://127.0.0.1:0"), policy))
		c, r = open(reply)
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) || r.last() != alertRecord {
			t.Errorf("reply: %d bytes, %v, last record %d", len(got), err, r.last())
		}
		c.Close()

		// Through forward: the client ends first, then the upstream.
		back, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer back.Close()
		front := h.open(withTLS(t, spec(t, forwardTo(back.Addr()), "", "tcp://127.0.0.1:0"), policy))
		for _, clientFirst := range []bool{true, false} {
			c, r = open(front)
			io.WriteString(c, "x") // so that the upstream is there
			u, err := back.Accept()
			if err != nil {
				t.Fatal(err)
			}
			u.SetDeadline(time.Now().Add(30 * time.Second))
			io.ReadFull(u, make([]byte, 1))
			first, second := net.Conn(c), u
			if !clientFirst {
				first, second = u, c
			}
			io.WriteString(first, "one")
			first.(interface{ CloseWrite() error }).CloseWrite()
			if got, err := io.ReadAll(second); err != nil || string(got) != "one" {
				t.Errorf("client first %v: %q, %v", clientFirst, got, err)
			}
			io.WriteString(second, "two")
			second.(interface{ CloseWrite() error }).CloseWrite()
			if got, err := io.ReadAll(first); err != nil || string(got) != "two" {
				t.Errorf("client first %v, back: %q, %v", clientFirst, got, err)
			}
			if r.last() != alertRecord {
				t.Errorf("client first %v: no close_notify, but a record %d", clientFirst, r.last())
			}
			u.Close()
			c.Close()
		}
		eventually(t, func() bool { return len(h.conns()) == 0 }, func() string { return "still open" })
	})
}
