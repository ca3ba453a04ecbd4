package listeners_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// webClient talks to one listener, at whatever URL.
func webClient(t *testing.T, to net.Addr) *http.Client {
	t.Helper()
	return webClientCounted(t, to, new(atomic.Int64))
}

// webClientCounted counts the connections that it makes.
func webClientCounted(t *testing.T, to net.Addr, made *atomic.Int64) *http.Client {
	t.Helper()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, to.Network(), to.String())
			if err == nil {
				made.Add(1)
			}
			return c, err
		},
		MaxIdleConnsPerHost: 100, ExpectContinueTimeout: time.Hour,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// net/http's client is served over every stream network: keep-alive, HEAD,
// bodies of both kinds, Expect.
func TestHTTPClient(t *testing.T) {
	body := []byte("hello, world\n")
	eachPoller(t, func(t *testing.T, h *host) {
		dir := shortDir(t)
		l := h.open(spec(t, &listeners.HTTP{Status: 202, Headers: map[string]string{"X-From": "test"}, Body: body}, "http.max_body_bytes=8MiB",
			"tcp://127.0.0.1:0", "tcp://[::1]:0", "unix://"+dir+"/s"))
		for i := range 3 {
			client := webClient(t, h.addr(l, i))
			accepted := h.stats(l).Accepted
			for _, tt := range []struct {
				method  string
				body    io.Reader
				headers string
			}{
				{"GET", nil, ""},
				{"HEAD", nil, ""},
				{"POST", strings.NewReader("x"), ""},
				{"POST", bytes.NewReader(make([]byte, 4<<20)), ""},
				{"PUT", io.LimitReader(zeros{}, 4<<20), ""}, // chunked
				{"POST", strings.NewReader("expected"), "100-continue"},
				{"POST", io.LimitReader(zeros{}, 1000), "100-continue"},
				{"DELETE", nil, ""},
			} {
				continued := false
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }})
				req, err := http.NewRequestWithContext(ctx, tt.method, "http://test/some/path?q", tt.body)
				if err != nil {
					t.Fatal(err)
				}
				if tt.headers != "" {
					req.Header.Set("Expect", tt.headers)
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatalf("%s: %v", tt.method, err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				want := body
				if tt.method == "HEAD" {
					want = nil
				}
				if err != nil || !bytes.Equal(got, want) || resp.StatusCode != 202 || resp.Header.Get("X-From") != "test" || resp.ContentLength != int64(len(body)) {
					t.Errorf("%s: %q, %v, %+v", tt.method, got, err, resp)
				}
				if date, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(date).Abs() > time.Hour {
					t.Errorf("date %v, %v", date, err)
				}
				if continued != (tt.headers != "") {
					t.Errorf("%s: continued %v", tt.method, continued)
				}
			}
			if n := h.stats(l).Accepted - accepted; n != 1 {
				t.Errorf("%d connections for one client", n)
			}
		}
	})
}

// What is refused is answered, and the client can read the answer although it
// was still sending.
func TestHTTPRefused(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.HTTP{}, "read_buffer_bytes=4KiB http.max_body_bytes=1000 http.request_timeout=100ms http.keepalive_timeout=100ms", "tcp://127.0.0.1:0"))
		long := strings.Repeat("x", 50_000)
		for _, tt := range []struct {
			send   string
			status int
		}{
			{"nonsense\r\n\r\n", 400},
			{"GET / HTTP/1.1\r\n\r\n", 400},
			{get[:len(get)-2] + "X: " + long + "\r\n\r\n", 431},
			{"GET /" + long + " HTTP/1.1\r\n", 414},
			{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n" + long, 413},
			{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + long, 413},
			{"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505},
			{"GET / HTTP/1.1\r\nHost", 408},
			{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello", 408},
		} {
			c := dial(t, h.addr(l, 0))
			io.WriteString(c, get+tt.send)
			r := bufio.NewReader(c)
			if resp := answer(t, c, r); resp.status != 200 {
				t.Errorf("%.40q: first %v", tt.send, resp.status)
			}
			if resp := answer(t, c, r); resp.status != tt.status || !resp.closes {
				t.Errorf("%.40q: %v, close %v", tt.send, resp.status, resp.closes)
			}
			ends(t, tt.send[:10], c, r)
		}
		begin := time.Now()
		for _, send := range []string{"", get} { // idle: closed without a word
			c := dial(t, h.addr(l, 0))
			io.WriteString(c, send)
			r := bufio.NewReader(c)
			if send != "" {
				answer(t, c, r)
			}
			ends(t, "idle", c, r)
		}
		if d := time.Since(begin); d < 200*time.Millisecond {
			t.Errorf("closed after %v", d)
		}
	})
}

// Pipelined requests are answered in order, whatever they are cut into and
// however slow the reader is; the body is larger than the kernel takes.
func TestHTTPPipelined(t *testing.T) {
	for _, size := range []int{0, 100, 5000, 200_000} {
		body := bytes.Repeat([]byte("0123456789"), size/10)
		eachWay(t, func(t *testing.T, h *host) {
			l := h.open(spec(t, &listeners.HTTP{Body: body}, "send_buffer_bytes=64KiB write_buffer_bytes=4KiB", "tcp://127.0.0.1:0"))
			c := dial(t, h.addr(l, 0)).(halfCloser)
			const requests = 20
			go func() {
				all := []byte(strings.Repeat(get+"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", requests))
				for part := range slices.Chunk(all, 1000) {
					c.Write(part)
				}
				c.CloseWrite()
			}()
			r := bufio.NewReaderSize(c, 4096)
			for i := range 3 * requests {
				req := &http.Request{Method: []string{"GET", "HEAD", "POST"}[i%3]}
				resp, err := http.ReadResponse(r, req)
				if err != nil {
					t.Fatalf("%d bytes, response %d: %v", size, i, err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if req.Method == "HEAD" && err == nil && len(got) == 0 {
					continue
				}
				if err != nil || !bytes.Equal(got, body) || resp.StatusCode != 200 {
					t.Fatalf("%d bytes, response %d: %d bytes, %v", size, i, len(got), err)
				}
			}
			ends(t, "pipelined", c, r)
		})
	}
}

// Many clients at once, some with connections of their own for each request.
func TestHTTPManyClients(t *testing.T) {
	const clients, requests = 40, 25
	eachPoller(t, func(t *testing.T, h *host) {
		l := h.open(spec(t, &listeners.HTTP{Body: []byte("hello")}, "", "tcp://127.0.0.1:0"))
		to := h.addr(l, 0)
		var wg sync.WaitGroup
		var made atomic.Int64
		for i := range clients {
			client := webClientCounted(t, to, &made)
			client.Transport.(*http.Transport).DisableKeepAlives = i%4 == 0
			wg.Go(func() {
				for range requests {
					resp, err := client.Get("http://test/")
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || string(got) != "hello" {
						t.Errorf("%q, %v", got, err)
					}
				}
				client.CloseIdleConnections()
			})
		}
		wg.Wait()
		eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return fmt.Sprintf("%+v", h.conns()) })
		// A few may be more than the clients need: net/http does not use a connection
		// again if its own goroutine has not said within 50 ms that it wrote the request.
		least := int64(clients/4*requests + clients*3/4)
		if n := int64(h.stats(l).Accepted); n != made.Load() || n < least || n > least+clients {
			t.Errorf("%d connections were accepted and %d made, of which %d are needed", n, made.Load(), least)
		}
	})
}

// Timeouts that are tuned reach connections that are open.
func TestHTTPTimeoutsTuned(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, &listeners.HTTP{}, "http.request_timeout=0 http.keepalive_timeout=0", "tcp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	r := bufio.NewReader(c)
	io.WriteString(c, get)
	answer(t, c, r)
	h.tune(l, "http.keepalive_timeout", "20ms")
	io.WriteString(c, get) // it counts from the next rest on
	answer(t, c, r)
	ends(t, "idle", c, r)
}

// A new handler is for new connections; who is connected keeps the old one.
func TestRetarget(t *testing.T) {
	eachPoller(t, func(t *testing.T, h *host) {
		const uri = "tcp://127.0.0.1:0"
		l := h.open(spec(t, &listeners.HTTP{Body: []byte("old")}, "", uri))
		ask := func(c net.Conn, r *bufio.Reader, want string) {
			t.Helper()
			io.WriteString(c, get)
			if got := answer(t, c, r).body; string(got) != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		first := dial(t, h.addr(l, 0))
		firstR := bufio.NewReader(first)
		ask(first, firstR, "old")
		h.do(func() { l.Settle(spec(t, &listeners.HTTP{Body: []byte("new")}, "", uri)) })
		second := dial(t, h.addr(l, 0))
		secondR := bufio.NewReader(second)
		ask(second, secondR, "new")
		ask(first, firstR, "old")
		h.do(func() { l.Settle(spec(t, listeners.Echo{}, "idle_timeout=1h", uri)) })
		third := dial(t, h.addr(l, 0))
		io.WriteString(third, "echo")
		if got := receive(t, third); string(got) != "echo" {
			t.Errorf("got %q", got)
		}
		ask(second, secondR, "new")
		ask(first, firstR, "old")
		if st := h.status(l); st.Active != 3 || st.Stats.Accepted != 3 {
			t.Errorf("%+v", st)
		}
	})
}

// Datagrams know no connections: the next one gets the new handler.
func TestRetargetDatagrams(t *testing.T) {
	h := newHost(t, "epoll", 0)
	l := h.open(spec(t, listeners.Echo{}, "", "udp://127.0.0.1:0"))
	c := dial(t, h.addr(l, 0))
	if got := ask(t, c, []byte("x")); string(got) != "x" {
		t.Errorf("got %q", got)
	}
	h.do(func() { l.Settle(spec(t, &listeners.Reply{Payload: []byte("fixed")}, "", "udp://127.0.0.1:0")) })
	if got := ask(t, c, []byte("x")); string(got) != "fixed" {
		t.Errorf("got %q", got)
	}
}
