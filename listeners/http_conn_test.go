package listeners

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// TestHTTPSlowPeer has a kernel that takes little, and write buffers down to
// none: nothing may be lost, doubled or out of order.
func TestHTTPSlowPeer(t *testing.T) {
	input := []byte(strings.Repeat(httpGet+"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"+httpChunks+"1\r\nx\r\n0\r\n\r\n", 40) + "GET / HTTP/1.0\r\n\r\n")
	for _, size := range []int{0, 100, httpShareAbove, httpShareAbove + 1, 300_000} {
		spec := &HTTP{Body: bytes.Repeat([]byte("x"), size)}
		want, _ := httpServe(t, spec, input)
		if got := httpCodes(t, want, strings.Repeat("GHP", 40)); got != strings.Repeat("200+ ", 120)+"200-" {
			t.Fatalf("%d bytes: %s", size, got)
		}
		for _, take := range []int{1000, 70_000} {
			for _, buffer := range []int64{0, 10, 500, 4096, 1 << 20} {
				s := newHTTPStream(t, spec)
				s.take, s.space, s.tunables.WriteBuffer = take, take, buffer
				s.feed(input)
				if string(s.sent) != want || !errors.Is(s.err, io.EOF) {
					t.Errorf("body %d, kernel %d, buffer %d: %d bytes, want %d, %v", size, take, buffer, len(s.sent), len(want), s.err)
				}
			}
		}
	}
}

// TestHTTPGathers counts writes: one for all that is offered, if the bound
// allows.
func TestHTTPGathers(t *testing.T) {
	s := newHTTPStream(t, &HTTP{Body: []byte("hello\n")})
	s.tunables.ReadBuffer = 1 << 20
	s.feed([]byte(strings.Repeat(httpGet, 100)))
	if s.writes != 1 {
		t.Errorf("%d writes for 100 small responses", s.writes)
	}
	before := len(s.sent)
	s.writes = 0
	s.feed([]byte(strings.Repeat(httpGet, 2000)))
	if most := (len(s.sent)-before)/httpGather + 2; s.writes > most {
		t.Errorf("%d writes for %d bytes", s.writes, len(s.sent)-before)
	}
}

func TestHTTPWriteFails(t *testing.T) {
	for _, input := range []string{httpGet, strings.Repeat(httpGet, 100), "x\r\n"} {
		s := newHTTPStream(t, &HTTP{})
		s.take, s.tunables.WriteBuffer = -1, 1000
		s.feed([]byte(input))
		if !errors.Is(s.err, errHTTPReset) {
			t.Errorf("%.20q: %v", input, s.err)
		}
	}
}

// TestHTTPDeadlines walks through the drawing at httpConn; a second passes
// before each piece of input.
func TestHTTPDeadlines(t *testing.T) {
	const request, keepalive = 30 * time.Second, 75 * time.Second
	s := newHTTPStream(t, &HTTP{})
	start := s.now
	expect := func(what string, want time.Time) {
		t.Helper()
		if !s.deadline.Equal(want) {
			t.Errorf("%s: deadline is in %v, want %v", what, s.deadline.Sub(s.now), want.Sub(s.now))
		}
	}
	feed := func(input string) {
		s.now = s.now.Add(time.Second)
		s.feed([]byte(input))
	}
	expect("accepted", start.Add(request))
	feed("\r\n")
	feed(httpGet[:1])
	feed(httpGet[1:20])
	expect("first request begun", start.Add(request))
	feed(httpGet[20:])
	expect("first request answered", s.now.Add(keepalive))
	armed := s.armed
	feed("\r\n\r")
	if s.armed != armed {
		t.Error("an empty line moved the deadline")
	}
	feed("\n" + httpGet[:1])
	begun := s.now
	expect("second request begun", begun.Add(request))
	feed(httpGet[1:20])
	expect("second request goes on", begun.Add(request))
	feed(httpGet[20:] + httpGet + httpGet[:5])
	expect("fourth request begun", s.now.Add(request))
	feed(httpGet[5:])
	feed(httpChunks + "5\r\n")
	begun = s.now
	feed("hello")
	feed("\r\n0\r\n")
	expect("body begun", begun.Add(request))
	feed("\r\n")
	expect("body answered", s.now.Add(keepalive))

	s.tunables.RequestTimeout = 0
	feed(httpGet[:5])
	expect("begun without limit", time.Time{})
	feed(httpGet[5:])
	expect("answered", s.now.Add(keepalive))
	s.tunables.KeepaliveTimeout = 0
	feed(httpGet)
	expect("idle without limit", time.Time{})
	armed = s.armed
	feed(httpGet + httpGet[:5])
	feed(httpGet[5:])
	if s.armed != armed {
		t.Error("SetDeadline called without timeouts")
	}
}

func TestHTTPExpired(t *testing.T) {
	for _, tt := range []struct{ name, input, want string }{
		{"silent", "", ""},
		{"empty line", "\r\n", ""},
		{"half an empty line", "\r\n\r", ""},
		{"first byte", "G", "408-"},
		{"head", httpGet[:20], "408-"},
		{"idle", httpGet, "200+"},
		{"idle with empty line", httpGet + "\r\n", "200+"},
		{"second request", httpGet + "G", "200+ 408-"},
		{"body", httpGet + httpChunks + "5\r\nhe", "200+ 408-"},
	} {
		s := newHTTPStream(t, &HTTP{})
		s.feed([]byte(tt.input))
		s.shared = false
		if err := s.h.(Expirer).Expired(s); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := httpCodes(t, string(s.sent), ""); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestHTTPExpiredSending: who is slow to take a response is not idle.
func TestHTTPExpiredSending(t *testing.T) {
	s := newHTTPStream(t, &HTTP{Body: []byte("hello")})
	s.take, s.space = 10, 10
	if n, err := s.h.Handle(s, []byte(httpGet)); n != len(httpGet) || err != nil {
		t.Fatal(n, err)
	}
	s.now = s.deadline
	if err := s.h.(Expirer).Expired(s); err != nil || !s.deadline.Equal(s.now.Add(75*time.Second)) {
		t.Errorf("sending: %v, %v", err, s.deadline)
	}
	s.drain()
	if err := s.h.(Expirer).Expired(s); !errors.Is(err, io.EOF) {
		t.Errorf("sent: %v", err)
	}
}

// TestHTTPExpiredStuck: who takes nothing gets no 408 on top.
func TestHTTPExpiredStuck(t *testing.T) {
	s := newHTTPStream(t, &HTTP{Body: []byte("hello")})
	s.take, s.space = 10, 10
	if _, err := s.h.Handle(s, []byte(httpGet+httpGet[:20])); err != nil {
		t.Fatal(err)
	}
	if err := s.h.(Expirer).Expired(s); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	s.drain()
	if got := httpCodes(t, string(s.sent), ""); got != "200+" {
		t.Errorf("got %q", got)
	}
}

func TestHTTPDrain(t *testing.T) {
	for _, tt := range []struct {
		name, before, after, want string
		atRest                    bool
	}{
		{"silent", "", "", "", true},
		{"idle", httpGet, "", "200+", true},
		{"idle with empty line", httpGet + "\r\n\r", "", "200+", true},
		{"in head", httpGet + httpGet[:1], httpGet[1:] + httpGet, "200+ 200-", false},
		{"in first head", httpGet[:18], httpGet[18:] + httpGet, "200-", false},
		{"in body", httpChunks + "5\r\nhe", "llo\r\n0\r\n\r\n" + httpGet, "200-", false},
	} {
		s := newHTTPStream(t, &HTTP{})
		s.feed([]byte(tt.before))
		if got := s.h.(Drainer).Drain(s); got != tt.atRest {
			t.Errorf("%s: at rest %v", tt.name, got)
		}
		s.feed([]byte(tt.after))
		if got := httpCodes(t, string(s.sent), ""); got != tt.want || (s.err != nil) == tt.atRest {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, s.err, tt.want)
		}
	}
}

// TestHTTPDrainSending: a response on its way is let go first, and a client that
// was told by it that it may ask again has the time for that.
func TestHTTPDrainSending(t *testing.T) {
	for _, asks := range []bool{false, true} {
		s := newHTTPStream(t, &HTTP{Body: []byte("hello")})
		s.take, s.space = 10, 10
		s.tunables.KeepaliveTimeout = 0
		if _, err := s.h.Handle(s, []byte(httpGet)); err != nil {
			t.Fatal(err)
		}
		if s.h.(Drainer).Drain(s) || !s.deadline.Equal(s.now.Add(httpDrainPoll)) {
			t.Error("at rest, or not asked to be called again")
		}
		s.now = s.deadline
		if err := s.h.(Expirer).Expired(s); err != nil || !s.deadline.After(s.now) {
			t.Errorf("sending: %v, %v", err, s.deadline)
		}
		s.drain()
		if err := s.h.(Expirer).Expired(s); err != nil || !s.deadline.Equal(s.now.Add(drainGrace)) {
			t.Errorf("sent: %v, %v", err, s.deadline)
		}
		if asks {
			s.feed([]byte(httpGet))
			s.drain()
			if got := httpCodes(t, string(s.sent), ""); got != "200+ 200-" || !errors.Is(s.err, io.EOF) {
				t.Errorf("asked again: %q, %v", got, s.err)
			}
			continue
		}
		s.now = s.deadline
		if err := s.h.(Expirer).Expired(s); !errors.Is(err, io.EOF) {
			t.Errorf("rested: %v", err)
		}
	}
}

func TestHTTPConnSize(t *testing.T) {
	if size := unsafe.Sizeof(httpConn{}); size > 48 {
		t.Errorf("httpConn has %d bytes", size)
	}
}

func TestHTTPWithoutOpen(t *testing.T) {
	if _, err := (&HTTP{}).New().Handle(newHTTPPeer(t), []byte(httpGet)); err == nil {
		t.Error("Handle without Open must fail")
	}
}
