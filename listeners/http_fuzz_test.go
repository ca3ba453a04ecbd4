package listeners

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzHTTPSplit feeds the same bytes whole and in random pieces, to peers
// with random bounds: it must not panic, nor stop where it could go on, nor
// answer otherwise. The peers share a Handler, so that what it remembers of
// one must not matter to the next.
func FuzzHTTPSplit(f *testing.F) {
	for i, tt := range httpRequests {
		f.Add([]byte(tt.input), uint64(i))
		f.Add([]byte(httpGet+tt.input+httpGet), uint64(i))
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		h := (&HTTP{Body: make([]byte, random.IntN(2)*httpShareAbove+random.IntN(50))}).New()
		readBuffer, maxBody := int64(64+random.IntN(1000)), int64(random.IntN(200))
		serve := func(most, take, writeBuffer int) (string, string) {
			p := newHTTPPeer(t)
			p.tunables.ReadBuffer, p.tunables.MaxRequestBody = readBuffer, maxBody
			p.take, p.space, p.tunables.WriteBuffer = take, take, int64(writeBuffer)
			c, err := h.(Opener).Open(p)
			if err != nil {
				t.Fatal(err)
			}
			s := &httpStream{httpPeer: p, h: c}
			for rest := input; len(rest) > 0; {
				n := min(len(rest), 1+random.IntN(most))
				s.feed(rest[:n])
				rest = rest[n:]
			}
			// Where 100 Continue is sent depends on what is there already.
			return strings.ReplaceAll(string(s.sent), httpContinue, ""), httpEnded(s.err)
		}
		want, ended := serve(1<<30, 1<<30, 1<<20)
		for _, most := range []int{1, 5, 100, 1 << 30} {
			got, end := serve(most, 1+random.IntN(10_000), random.IntN(2000))
			if got != want || end != ended {
				t.Fatalf("pieces of at most %d, %s:\n%.2000q\nwhole, %s:\n%.2000q", most, end, got, ended, want)
			}
		}
	})
}

// httpStricter are the refusals of what net/http accepts, all on purpose.
var httpStricter = map[*httpRefusal]string{
	httpBadByte:      "net/http ends lines at a bare LF",
	httpBadLine:      "net/http cuts the request line at the first and last space and trims",
	httpBadTarget:    "net/http has spaces in a target, and a method CONNECT without a port",
	httpBadField:     "net/http unfolds lines",
	httpNoHost:       "net/http.Server, not ReadRequest, wants it",
	httpTwoHosts:     "as httpNoHost",
	httpBadHost:      "as httpNoHost",
	httpTwoLengths:   "net/http merges equal ones",
	httpTwoFramings:  "net/http prefers Transfer-Encoding",
	httpEarlyCoding:  "net/http ignores it",
	httpBadChunk:     "net/http trims spaces after the size",
	httpTooLarge:     "net/http.MaxBytesReader is for that",
	httpBadExpect:    "net/http.Server answers that",
	httpNoTunnel:     "net/http leaves it to the handler",
	httpOtherVersion: "net/http.Server, not ReadRequest, refuses it",
	httpHeadTooLarge: "net/http.Server, not ReadRequest, bounds it",
	httpLineTooLong:  "as httpHeadTooLarge",
}

// httpLooser reports whether err is for something that net/http alone refuses.
func httpLooser(input []byte, err error) bool {
	var bad *url.Error
	return errors.As(err, &bad) || // targets are not looked into
		bytes.HasPrefix(input, []byte("\r\n")) || // empty lines before a request
		strings.Contains(err.Error(), "too much non-data") || // chunk extensions are bounded otherwise
		// RFC 9112 7.1.1 has white space before the semicolon parsed.
		strings.Contains(err.Error(), "invalid byte in chunk length") && (bytes.Contains(input, []byte(" ;")) || bytes.Contains(input, []byte("\t;")))
}

// FuzzHTTPReadRequest compares with net/http: a request that both accept must
// end at the same byte, and only documented rules make one of them refuse it.
func FuzzHTTPReadRequest(f *testing.F) {
	for _, tt := range httpRequests {
		f.Add([]byte(tt.input))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		tunables := &Tunables{ReadBuffer: 3000, MaxRequestBody: 1 << 20}
		for len(input) > 0 {
			var r httpRequest
			n, refusal := r.read(input, tunables)
			theirs, err := httpTheirs(input)
			switch {
			case refusal != nil:
				if err == nil && httpStricter[refusal] == "" {
					t.Fatalf("%q: refused as %q, net/http accepts", input, refusal.why)
				}
				return
			case r.phase != httpDone:
				if err == nil {
					t.Fatalf("%q: incomplete, net/http accepts %q", input, input[:theirs])
				}
				return
			case err != nil:
				if !httpLooser(input, err) {
					t.Fatalf("%q: accepted, net/http says %v", input, err)
				}
			case n != theirs:
				t.Fatalf("%q: ends after %q, for net/http after %q", input, input[:n], input[:theirs])
			}
			input = input[n:]
		}
	})
}

// httpTheirs returns the length of the first request in input, as net/http
// reads it.
func httpTheirs(input []byte) (int, error) {
	source := bytes.NewReader(input)
	br := bufio.NewReader(source)
	req, err := http.ReadRequest(br)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return 0, err
	}
	return len(input) - source.Len() - br.Buffered(), nil
}

// TestHTTPAgreed has requests that everybody must accept, up to the same byte.
func TestHTTPAgreed(t *testing.T) {
	agreed := 0
	for _, tt := range httpRequests {
		if !strings.HasPrefix(tt.want, "200") || strings.HasPrefix(tt.input, "\r\n") {
			continue
		}
		var r httpRequest
		input := []byte(tt.input)
		n, refusal := r.read(input, &Tunables{ReadBuffer: 1 << 16, MaxRequestBody: 1 << 20})
		theirs, err := httpTheirs(input)
		if err != nil && httpLooser(input, err) {
			continue
		}
		if refusal != nil || err != nil || n != theirs {
			t.Errorf("%s: %d bytes, %v; net/http %d, %v", tt.name, n, refusal, theirs, err)
		}
		agreed++
	}
	if agreed < 20 {
		t.Errorf("only %d requests to agree on", agreed)
	}
}
