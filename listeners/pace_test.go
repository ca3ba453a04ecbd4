package listeners_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// within reports how long f takes, and wants that to be near a time.
func within(t *testing.T, want time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took < want*8/10 || took > want*3/2+time.Second {
		t.Errorf("took %v, want %v", took, want)
	}
}

// Whatever serves a connection keeps to its rate, by what it reads and by what
// it writes, and nothing is lost.
func TestRates(t *testing.T) {
	const size = 60_000
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	eachWay(t, func(t *testing.T, h *host) {
		up := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
		web := &listeners.HTTP{Body: data}
		forward := forwardTo(h.addr(up, 0))
		for _, tt := range []struct {
			name    string
			handler listeners.HandlerSpec
			option  string
			uri     string
		}{
			{"echo read", listeners.Echo{}, "read_rate_bytes=100000", "tcp://127.0.0.1:0"},
			{"echo write", listeners.Echo{}, "write_rate_bytes=100000", "unix://" + shortDir(t) + "/s"},
			{"echo all", listeners.Echo{}, "listener_read_rate_bytes=100000 write_rate_bytes=1GiB", "unix://" + shortDir(t) + "/s"},
			{"forward read", forward, "read_rate_bytes=100000", "tcp://127.0.0.1:0"},
			{"forward write", forward, "write_rate_bytes=100000", "tcp://127.0.0.1:0"},
			{"forward all", forward, "listener_write_rate_bytes=100000", "tcp://127.0.0.1:0"},
			{"discard", listeners.Discard{}, "read_rate_bytes=100000", "tcp://127.0.0.1:0"},
			{"http", web, "write_rate_bytes=100000", "tcp://127.0.0.1:0"},
			{"chargen", listeners.Chargen{}, "listener_write_rate_bytes=100000", "tcp://127.0.0.1:0"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				l := h.open(spec(t, tt.handler, tt.option, tt.uri))
				c := dial(t, h.addr(l, 0))
				turns := h.turns(func() {
					within(t, size*time.Second/100_000, func() {
						switch tt.handler.(type) {
						case *listeners.HTTP:
							io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
							if got, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(got, data) {
								t.Errorf("%d bytes, %v", len(got), err)
							}
						case listeners.Chargen:
							if _, err := io.CopyN(io.Discard, c, size); err != nil {
								t.Error(err)
							}
						case listeners.Discard:
							c.Write(data)
							eventually(t, func() bool { return h.stats(l).Received == size }, func() string { return "not read" })
						default:
							go func() {
								c.Write(data)
								c.(interface{ CloseWrite() error }).CloseWrite()
							}()
							if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
								t.Errorf("%d bytes, %v", len(got), err)
							}
						}
					})
				})
				if _, discard := tt.handler.(listeners.Discard); turns > 400 && !discard { // there the test asks all the time
					t.Errorf("%d turns", turns)
				}
			})
		}
	})
}

// All connections of a listener share its rate, and each has its part. Other
// listeners do not notice.
func TestListenerRate(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		const conns, each = 40, 2_000
		l := h.open(spec(t, listeners.Chargen{}, "listener_write_rate_bytes=100000", "tcp://127.0.0.1:0"))
		other := dial(t, h.addr(h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0")), 0))
		var open []net.Conn
		for range conns {
			open = append(open, dial(t, h.addr(l, 0)))
		}
		var times []time.Duration
		within(t, conns*each*time.Second/100_000, func() {
			began, mu, wg := time.Now(), sync.Mutex{}, sync.WaitGroup{}
			for _, c := range open {
				wg.Go(func() {
					if _, err := io.CopyN(io.Discard, c, each); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					times = append(times, time.Since(began))
				})
			}
			for range 50 {
				ask(t, other, []byte("x"))
			}
			if took := time.Since(began); took > 500*time.Millisecond {
				t.Errorf("50 echoes beside it took %v", took)
			}
			wg.Wait()
		})
		first, half, last := times[0], times[conns/2], times[conns-1]
		t.Logf("%d connections had their %d bytes after %v, %v at half, to %v", conns, each, first, half, last)
		if half < last/2 { // the first had what the bucket had
			t.Errorf("half of them had their bytes after %v, the last after %v", half, last)
		}
	})
}

// A rate changes for connections that wait because of it.
func TestRatesLive(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		for _, option := range []string{"read_rate_bytes", "write_rate_bytes", "listener_read_rate_bytes", "listener_write_rate_bytes"} {
			l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
			c := dial(t, h.addr(l, 0))
			ask(t, c, []byte("x"))
			h.tune(l, option, "10")
			c.Write(make([]byte, 100_000))
			if turns := h.turns(func() { h.until(200 * time.Millisecond) }); turns > 40 {
				t.Errorf("%s: %d turns", option, turns)
			}
			if st := h.status(l); st.Active != 1 || len(h.conns()) != 1 {
				t.Errorf("%s: %d connections, %d to be seen", option, st.Active, len(h.conns()))
			}
			began := time.Now()
			h.tune(l, option, "0")
			if _, err := io.CopyN(io.Discard, c, 100_000); err != nil || time.Since(began) > 5*time.Second {
				t.Errorf("%s: %v after %v", option, err, time.Since(began))
			}
			c.Close()
			eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
		}
	})
}

// A peer that has gone while its connection may not move costs no turns, and
// the connection is closed when it may again, or with its listener.
func TestRatePeerGone(t *testing.T) {
	eachWay(t, func(t *testing.T, h *host) {
		for i, uri := range []string{"tcp://127.0.0.1:0", "unix://" + shortDir(t) + "/s"} {
			l := h.open(spec(t, listeners.Discard{}, fmt.Sprintf("%sread_rate_bytes=5", []string{"", "listener_"}[i]), uri))
			c := dial(t, h.addr(l, 0))
			c.Write(make([]byte, 100_000))
			eventually(t, func() bool { return h.stats(l).Received > 0 }, func() string { return "nothing is read" })
			if tcp, ok := c.(*net.TCPConn); ok {
				if err := tcp.SetLinger(0); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			if turns := h.turns(func() { h.until(100 * time.Millisecond) }); turns > 20 {
				t.Errorf("%s: %d turns", uri, turns)
			}
		}
	})
}
