package listeners

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// httpSink is a peer that takes everything at once.
type httpSink struct {
	now      time.Time
	deadline time.Time
	tunables Tunables
	bytes    int
}

func (s *httpSink) Write(p []byte) (int, error) { s.bytes += len(p); return len(p), nil }
func (s *httpSink) WriteShared(p []byte) error  { s.bytes += len(p); return nil }
func (s *httpSink) Pending() bool               { return false }
func (s *httpSink) Now() time.Time              { return s.now }
func (s *httpSink) SetDeadline(t time.Time)     { s.deadline = t }
func (s *httpSink) Tunables() *Tunables         { return &s.tunables }

func newHTTPSink(tb testing.TB, spec *HTTP) (*httpSink, Handler) {
	tb.Helper()
	s := &httpSink{now: httpEpoch, tunables: newHTTPPeer(tb).tunables}
	s.tunables.ReadBuffer = 64 << 10
	h, err := spec.New().(Opener).Open(s)
	if err != nil {
		tb.Fatal(err)
	}
	return s, h
}

const httpBrowser = "GET /index.html?lang=en HTTP/1.1\r\nHost: www.example.org\r\nConnection: keep-alive\r\n" +
	"sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n" +
	"Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: none\r\n" +
	"Sec-Fetch-Mode: navigate\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"

var httpLoads = []struct {
	name  string
	body  int // of the response
	input string
	count int // of requests in input
}{
	{"get", 6, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1},
	{"get-64B", 6, "GET / HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*, abcdefg\r\n\r\n", 1},
	{"browser", 6, httpBrowser, 1},
	{"pipelined-16", 6, strings.Repeat("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 16), 16},
	{"varied", 6, httpGet + "GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n", 2},
	{"browser-varied", 6, httpBrowser + strings.Replace(httpBrowser, "index", "other", 1), 2},
	{"post-1KiB", 6, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024), 1},
	{"chunked", 6, httpChunks + strings.Repeat("100\r\n"+strings.Repeat("x", 256)+"\r\n", 4) + "0\r\n\r\n", 1},
	{"large-response", 1 << 20, httpGet, 1},
	{"head", 1 << 20, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1},
	{"1.0", 6, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 1},
}

func TestHTTPAllocs(t *testing.T) {
	for _, load := range httpLoads {
		s, h := newHTTPSink(t, &HTTP{Body: bytes.Repeat([]byte("x"), load.body)})
		input := []byte(load.input)
		if n := testing.AllocsPerRun(100, func() {
			s.now = s.now.Add(700 * time.Millisecond) // so that the date changes
			if n, err := h.Handle(s, input); n != len(input) || err != nil {
				t.Fatal(n, err)
			}
			_, _ = h.Handle(s, input[:10]) // part of a line
			_, _ = h.Handle(s, input)
		}); n != 0 {
			t.Errorf("%s: %v allocations", load.name, n)
		}
	}
}

func BenchmarkHTTP(b *testing.B) {
	for _, load := range httpLoads {
		b.Run(load.name, func(b *testing.B) {
			s, h := newHTTPSink(b, &HTTP{Body: bytes.Repeat([]byte("x"), load.body)})
			input := []byte(load.input)
			b.ReportAllocs()
			b.SetBytes(int64(len(input)))
			for b.Loop() {
				if n, err := h.Handle(s, input); n != len(input) || err != nil {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*load.count), "ns/request")
		})
	}
}

// BenchmarkHTTPScan is the least any server does: look for the end of a head.
func BenchmarkHTTPScan(b *testing.B) {
	for _, load := range httpLoads[:3] {
		b.Run(load.name, func(b *testing.B) {
			input, end := []byte(load.input), []byte("\r\n\r\n")
			b.SetBytes(int64(len(input)))
			for b.Loop() {
				if !bytes.Contains(input, end) {
					b.Fatal("no end")
				}
			}
		})
	}
}
