package listeners

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// A helloConn has only what a client sent.
type helloConn struct {
	net.Conn
	r *bytes.Reader
}

func (c *helloConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *helloConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *helloConn) Close() error                { return nil }

func (c *helloConn) SetDeadline(time.Time) error      { return nil }
func (c *helloConn) SetReadDeadline(time.Time) error  { return nil }
func (c *helloConn) SetWriteDeadline(time.Time) error { return nil }

// serverSees is the name that crypto/tls reads, if it reads a hello.
func serverSees(input []byte) (name string, ok bool) {
	stop := errors.New("stop")
	_ = tls.Server(&helloConn{r: bytes.NewReader(input)}, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = i.ServerName, true
		return nil, stop
	}}).Handshake()
	return name, ok
}

// FuzzHello feeds the same bytes whole and in pieces: it must not panic, and the
// answer is the same, after as many bytes. A server reads no other name.
func FuzzHello(f *testing.F) {
	for _, name := range []string{"", "a.test", "*.x", strings.Repeat("a.", 120) + "test"} {
		f.Add(sampleHello(name, false), uint64(1))
		f.Add(sampleHello(name, true), uint64(2))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint64(3))
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		feed := func(most int) (name string, whole bool, fault string) {
			h := &hello{}
			for rest := input; len(rest) > 0; {
				n := min(len(rest), 1+random.IntN(most))
				var err error
				if name, whole, err = h.add(rest[:n]); err != nil {
					return "", false, err.Error()
				}
				rest = rest[n:]
				if whole {
					break
				}
			}
			if !bytes.HasPrefix(input, h.raw) || len(h.body) > len(h.raw) {
				t.Fatal("what came is not as it came")
			}
			return name, whole, ""
		}
		name, whole, fault := feed(1 << 30)
		for _, most := range []int{1, 5, 100} {
			n, w, e := feed(most)
			if whole && (n != name || !w) || fault == "" && e != "" {
				t.Fatalf("whole: %q, %v, %s; by %d: %q, %v, %s", name, whole, fault, most, n, w, e)
			}
		}
		if theirs, ok := serverSees(input); whole && ok && !strings.EqualFold(theirs, name) {
			t.Fatalf("we see %q, a server %q", name, theirs)
		}
	})
}

// sampleHello is a ClientHello with a GREASE extension, in one record or in
// records of 3 bytes.
func sampleHello(name string, cut bool) []byte {
	vector := func(n int, p []byte) (out []byte) {
		for i := n - 1; i >= 0; i-- {
			out = append(out, byte(len(p)>>(8*i)))
		}
		return append(out, p...)
	}
	extensions := append([]byte{0x2a, 0x2a}, vector(2, nil)...)
	if name != "" {
		extensions = append(append(extensions, 0, 0), vector(2, vector(2, append([]byte{0}, vector(2, []byte(name))...)))...)
	}
	extensions = append(append(extensions, 0, 43), vector(2, vector(1, []byte{3, 4}))...) // supported_versions
	body := append(append([]byte{3, 3}, make([]byte, 32)...), 0)
	body = append(body, vector(2, []byte{0x13, 1})...)
	body = append(append(body, 1, 0), vector(2, extensions)...)
	message := append([]byte{1}, vector(3, body)...)
	most := len(message)
	if cut {
		most = 3
	}
	var out []byte
	for len(message) > 0 {
		n := min(most, len(message))
		out = append(append(out, 22, 3, 1), vector(2, message[:n])...)
		message = message[n:]
	}
	return out
}

// What is wrong with a hello is told, and nothing is read beyond a bound.
func TestHello(t *testing.T) {
	good := sampleHello("A.Test", false)
	if name, whole, err := (&hello{}).add(good); name != "a.test" || !whole || err != nil {
		t.Errorf("%q, %v, %v", name, whole, err)
	}
	for i := range good { // no byte is read that is not there
		h := &hello{}
		if _, whole, err := h.add(good[:i]); whole || err != nil {
			t.Errorf("%d bytes: %v, %v", i, whole, err)
		}
	}
	if name, whole, err := (&hello{}).add(sampleHello("a.test", true)); name != "a.test" || !whole || err != nil {
		t.Errorf("%q, %v, %v", name, whole, err)
	}
	for _, name := range []string{"a b", "a\x00b", "a\nb", strings.Repeat("a", 256), "\xff"} {
		if _, _, err := (&hello{}).add(sampleHello(name, false)); !errors.Is(err, errBadName) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	h := &hello{}
	var err error
	for range 1 << 20 {
		if _, _, err = h.add([]byte("\x16\x03\x01\x00\x01\x01")[:6]); err != nil {
			break
		}
	}
	if err == nil || len(h.raw) > maxHello+6 {
		t.Errorf("%v, %d bytes kept", err, len(h.raw))
	}
}
