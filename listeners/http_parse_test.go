package listeners

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// httpCodes returns the statuses of the responses in sent, each with + or - for
// a connection that stays or closes. It reads them as a client would, so
// their framing must be right.
func httpCodes(tb testing.TB, sent, methods string) string {
	tb.Helper()
	var codes []string
	r := bufio.NewReader(strings.NewReader(sent))
	for i := 0; ; {
		if _, err := r.Peek(1); err != nil {
			return strings.Join(codes, " ")
		}
		req := &http.Request{Method: "GET"}
		if i < len(methods) && methods[i] == 'H' {
			req.Method = "HEAD"
		}
		res, err := http.ReadResponse(r, req)
		if err != nil {
			tb.Fatalf("response %d of %q: %v", i, sent, err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		if res.Body.Close(); err != nil {
			tb.Fatalf("body of response %d of %q: %v", i, sent, err)
		}
		sign := "+"
		if res.Close {
			sign = "-"
		}
		codes = append(codes, fmt.Sprint(res.StatusCode, sign))
		if res.StatusCode != http.StatusContinue {
			i++
		}
	}
}

// TestHTTPRequests feeds every request whole, byte by byte and split at every
// place: the answer must be the same.
func TestHTTPRequests(t *testing.T) {
	spec := &HTTP{Body: []byte("hello\n")}
	for _, tt := range httpRequests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := httpServe(t, spec, []byte(tt.input))
			if got := httpCodes(t, want, ""); got != tt.want {
				t.Fatalf("got %q, want %q: %s", got, tt.want, want)
			}
			ended := httpEnded(err)
			if closes := strings.HasSuffix(tt.want, "-"); closes != (ended == "closed") {
				t.Fatalf("after %s the stream is %s", tt.want, ended)
			}
			check := func(pieces ...int) {
				t.Helper()
				got, err := httpServe(t, spec, []byte(tt.input), pieces...)
				if got != want || httpEnded(err) != ended {
					t.Fatalf("split at %d, %s:\n%s\nwhole, %s:\n%s", pieces, httpEnded(err), got, ended, want)
				}
			}
			bytewise := make([]int, len(tt.input))
			for i := range bytewise {
				bytewise[i] = 1
			}
			check(bytewise...)
			for i := range tt.input {
				check(i)
			}
		})
	}
}

func TestHTTPContinue(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
	for _, tt := range []struct{ head, body string }{
		{post + "Content-Length: 5\r\n\r\n", "hello"},
		{post + "Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"},
	} {
		s := newHTTPStream(t, &HTTP{})
		s.feed([]byte(httpGet + tt.head))
		s.feed([]byte(tt.body[:1]))
		s.feed([]byte(tt.body[1:] + httpGet))
		if got := httpCodes(t, string(s.sent), ""); got != "200+ 100+ 200+ 200+" {
			t.Errorf("body later: %s", got)
		}
		s = newHTTPStream(t, &HTTP{})
		s.feed([]byte(tt.head + tt.body[:1]))
		s.feed([]byte(tt.body[1:]))
		if got := httpCodes(t, string(s.sent), ""); got != "200+" {
			t.Errorf("body at once: %s", got)
		}
	}
}

func TestHTTPMaxBody(t *testing.T) {
	for input, want := range map[string]string{
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n": "200+",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n": "413-",
		httpChunks + "0\r\n\r\n":                                  "200+",
		httpChunks + "1\r\n":                                      "413-",
	} {
		s := newHTTPStream(t, &HTTP{})
		s.tunables.MaxRequestBody = 0
		s.feed([]byte(input))
		if got := httpCodes(t, string(s.sent), ""); got != want {
			t.Errorf("%q: %s, want %s", input, got, want)
		}
	}
}

// TestHTTPScan has every byte at every place of a word, alone and before
// bytes that a borrow could mark.
func TestHTTPScan(t *testing.T) {
	for b := range 256 {
		for at := range 20 {
			for _, fill := range []byte{'!', '~', 0x80, 0xff} {
				p := bytes.Repeat([]byte{fill}, 21)
				p[at] = byte(b)
				control := b < ' ' || b == 0x7f
				want, wantStrict := len(p), len(p)
				if control && b != '\t' {
					want = at
				}
				if control || b == ' ' {
					wantStrict = at
				}
				if got, strict := httpScan(p, ' '), httpScan(p, '!'); got != want || strict != wantStrict {
					t.Fatalf("%q: %d and %d, want %d and %d", p, got, strict, want, wantStrict)
				}
			}
		}
	}
}
