package listeners

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

// httpPeer is a stream whose kernel takes as many bytes as the test says. It
// fails the test where a handler breaks the contract of Peer.
type httpPeer struct {
	tb       testing.TB
	sent     []byte // taken by the kernel
	kept     []byte // not yet
	take     int    // bytes the kernel takes before it is full, and each time it drains
	space    int    // what is left of take
	writes   int    // calls of Write and WriteShared
	shared   bool   // WriteShared was called in this call of Handle
	now      time.Time
	deadline time.Time
	armed    int // calls of SetDeadline
	tunables Tunables
}

var (
	httpEpoch    = time.Date(1994, 11, 6, 8, 49, 37, 5, time.UTC)
	errHTTPReset = errors.New("reset")
)

func newHTTPPeer(tb testing.TB) *httpPeer {
	tb.Helper()
	return &httpPeer{tb: tb, take: 1 << 30, space: 1 << 30, now: httpEpoch, tunables: Tunables{
		ReadBuffer: 512, WriteBuffer: 1 << 20, MaxRequestBody: 1 << 20,
		RequestTimeout: 30 * time.Second, KeepaliveTimeout: 75 * time.Second,
	}}
}

func (p *httpPeer) Now() time.Time          { return p.now }
func (p *httpPeer) Tunables() *Tunables     { return &p.tunables }
func (p *httpPeer) Pending() bool           { return len(p.kept) > 0 }
func (p *httpPeer) SetDeadline(t time.Time) { p.deadline, p.armed = t, p.armed+1 }

func (p *httpPeer) Write(b []byte) (int, error) {
	if len(b) == 0 || p.shared {
		p.tb.Errorf("Write of %d bytes, after WriteShared: %v", len(b), p.shared)
	}
	if p.take < 0 {
		return 0, errHTTPReset
	}
	p.writes++
	n := p.kernel(b)
	keep := min(len(b)-n, max(0, int(p.tunables.WriteBuffer)-len(p.kept)))
	p.kept = append(p.kept, b[n:n+keep]...)
	return n + keep, nil
}

func (p *httpPeer) WriteShared(b []byte) error {
	if len(b) == 0 || p.shared {
		p.tb.Errorf("WriteShared of %d bytes, after another: %v", len(b), p.shared)
	}
	p.shared = true
	p.writes++
	p.kept = append(p.kept, b[p.kernel(b):]...)
	return nil
}

func (p *httpPeer) kernel(b []byte) int {
	if p.Pending() {
		return 0
	}
	n := min(len(b), p.space)
	p.space -= n
	p.sent = append(p.sent, b[:n]...)
	return n
}

// drain lets the peer read until nothing is pending.
func (p *httpPeer) drain() {
	for p.Pending() {
		n := min(p.take, len(p.kept))
		p.sent, p.kept = append(p.sent, p.kept[:n]...), p.kept[n:]
	}
	p.space = p.take
}

// httpStream offers input to a Handler as a connection does.
type httpStream struct {
	*httpPeer
	h    Handler
	rest []byte
	err  error
}

func newHTTPStream(tb testing.TB, spec *HTTP) *httpStream {
	tb.Helper()
	return openHTTP(newHTTPPeer(tb), spec)
}

func openHTTP(p *httpPeer, spec *HTTP) *httpStream {
	h, err := spec.New().(Opener).Open(p)
	if err != nil {
		p.tb.Fatal(err)
	}
	return &httpStream{httpPeer: p, h: h}
}

// feed offers b after what was left. It stops with the stream.
func (s *httpStream) feed(b []byte) {
	s.rest = append(s.rest, b...)
	for s.err == nil && len(s.rest) > 0 {
		offer := bytes.Clone(s.rest[:min(len(s.rest), int(s.tunables.ReadBuffer))])
		s.shared = false
		n, err := s.h.Handle(s, offer)
		clear(offer) // p is valid until Handle returns
		if n < 0 || n > len(offer) {
			s.tb.Fatalf("consumed %d of %d bytes", n, len(offer))
		}
		s.rest, s.err = s.rest[n:], err
		waits := s.Pending()
		s.drain()
		if n == 0 && !waits && err == nil {
			if len(offer) == int(s.tunables.ReadBuffer) {
				s.tb.Fatalf("stuck with a full buffer: %q", offer)
			}
			return
		}
	}
}

// httpServe feeds input in pieces and returns what was sent, and the error.
func httpServe(tb testing.TB, spec *HTTP, input []byte, pieces ...int) (string, error) {
	tb.Helper()
	s := newHTTPStream(tb, spec)
	for _, n := range pieces {
		s.feed(input[:n])
		input = input[n:]
	}
	s.feed(input)
	return string(s.sent), s.err
}

// httpEnded reports how a stream ended.
func httpEnded(err error) string {
	switch {
	case err == nil:
		return "open"
	case errors.Is(err, io.EOF):
		return "closed"
	}
	return err.Error()
}
