package listeners_test

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// eachTurn calls f on the loop after every turn until it returns false, and
// returns then.
func (h *host) eachTurn(f func() bool) {
	h.t.Helper()
	done := make(chan struct{})
	var again func()
	again = func() {
		if !f() || h.loop.Post(again) != nil {
			close(done)
		}
	}
	h.do(again)
	<-done
}

// A client that asks for much at once has a bounded part of each turn, whether
// what it gets is large, is gathered from many answers, or takes many writes; and
// it gets all of it without asking for more, also if it has said that it will not.
func TestTurnIsBounded(t *testing.T) {
	for _, tt := range []struct {
		what, options string
		body, asked   int
	}{
		{"large", "", 300_000, 30},
		{"shared", "", 5_000, 2000},
		{"gathered", "", 4_000, 2000},
		{"one by one", "write_buffer_bytes=1KiB", 10, 2000},
		{"paced", "write_rate_bytes=100MB", 5_000, 2000},
		{"at fault", "fault.delay=1ms", 5_000, 1000},
	} {
		t.Run(tt.what, func(t *testing.T) {
			eachPoller(t, func(t *testing.T, h *host) {
				l := h.open(spec(t, &listeners.HTTP{Body: make([]byte, tt.body)}, tt.options, "tcp4://127.0.0.1:0"))
				c := dial(t, h.addr(l, 0)).(halfCloser)
				io.WriteString(c, get)
				r := bufio.NewReader(c)
				answer(t, c, r)
				one := int(h.conns()[0].Sent)
				begun, got := make(chan struct{}), make(chan []byte, 1)
				go func() {
					<-begun
					io.WriteString(c, strings.Repeat(get, tt.asked))
					c.CloseWrite()
					all, err := io.ReadAll(r)
					if err != nil {
						t.Error(err)
					}
					got <- all
				}()
				var sent, mostSent, writes, mostWrites uint64
				h.eachTurn(func() bool {
					was, wrote := sent, writes
					sent = l.Status(false).Stats.Sent
					conns, _ := h.set.Conns(listeners.ConnQuery{}, 0, 1)
					if len(conns) > 0 {
						writes = uint64(conns[0].Writes)
					}
					if was == 0 {
						close(begun)
					} else {
						mostSent, mostWrites = max(mostSent, sent-was), max(mostWrites, writes-wrote)
					}
					return len(conns) > 0
				})
				all := <-got
				if n := bytes.Count(all, []byte("HTTP/1.1 200 OK")); n != tt.asked || len(all) != n*one {
					t.Errorf("%d answers in %d bytes, want %d in %d", n, len(all), tt.asked, tt.asked*one)
				}
				t.Logf("%d answers of %d bytes: at most %d bytes and %d writes in a turn", tt.asked, one, mostSent, mostWrites)
				if bound := uint64(256<<10 + 2*one + 64<<10); mostSent > bound || mostWrites > 70 {
					t.Errorf("%d bytes and %d writes in a turn, at most %d and 70", mostSent, mostWrites, bound)
				}
			})
		})
	}
}
