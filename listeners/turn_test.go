package listeners_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

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

const manyAnswers = 1500

// asksMuch asks for many answers, and returns how many came until the end; the
// last of them may say that it is.
func asksMuch(c net.Conn) (n int, last bool, err error) {
	if _, err := io.WriteString(c, strings.Repeat(get, manyAnswers)); err != nil {
		return 0, false, err
	}
	for r := bufio.NewReader(c); ; n++ {
		resp, err := http.ReadResponse(r, nil)
		if errors.Is(err, io.ErrUnexpectedEOF) && r.Buffered() == 0 { // as net/http has it where an answer would begin
			err = nil
		}
		if err != nil || resp == nil {
			return n, last, err
		}
		last = resp.Close
		if size, err := io.Copy(io.Discard, resp.Body); err != nil || size != resp.ContentLength {
			return n, last, fmt.Errorf("%d bytes: %w", size, err)
		}
		resp.Body.Close()
		if n == manyAnswers-1 {
			_ = c.(halfCloser).CloseWrite()
		}
	}
}

// isBetween reports whether a connection waits for its next turn: there are
// requests, and nothing is owed. It is called on the loop.
func (h *host) isBetween() (c listeners.ConnStatus, yes bool) {
	conns, _ := h.set.Conns(listeners.ConnQuery{Detail: listeners.DetailFull}, 0, 1)
	if len(conns) == 0 {
		return c, false
	}
	c = conns[0]
	return c, c.Queue.UserReceive > uint64(len(get)) && c.Queue.UserSend == 0
}

// What ends connections, or changes what they go by, reaches one that waits for
// its next turn, and no answer is cut short.
func TestBetweenTurns(t *testing.T) {
	for _, tt := range []struct {
		what string
		do   func(h *host, l *listeners.Listener, c listeners.ConnStatus)
		all  bool // the answers
		last bool // is told to be the last
	}{
		{"stop", func(_ *host, l *listeners.Listener, _ listeners.ConnStatus) { l.Stop(longTime) }, false, true},
		{"close", func(h *host, _ *listeners.Listener, c listeners.ConnStatus) { h.set.CloseConn(c.FD, c.Cookie, false) }, false, false},
		{"retire", func(h *host, _ *listeners.Listener, c listeners.ConnStatus) { h.set.RetireConn(c.FD, c.Cookie) }, false, true},
		{"pause", func(h *host, l *listeners.Listener, _ listeners.ConnStatus) {
			if err := l.Pause(listeners.Hold); err != nil {
				h.t.Error(err)
			}
		}, true, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			eachPoller(t, func(t *testing.T, h *host) {
				l := h.open(spec(t, &listeners.HTTP{Body: make([]byte, 5000)}, "", "tcp4://127.0.0.1:0"))
				c := dial(t, h.addr(l, 0))
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					n, last, err := asksMuch(c)
					c.Close()
					if err != nil || (n == manyAnswers) != tt.all || n == 0 || last != tt.last {
						t.Errorf("%d answers, the last of them is told to be: %v; %v", n, last, err)
					}
				}()
				end := time.Now().Add(20 * time.Second)
				h.eachTurn(func() bool {
					c, yes := h.isBetween()
					if yes {
						tt.do(h, l, c)
					} else if time.Now().After(end) {
						t.Error("it never waits for its turn")
						return false
					}
					return !yes
				})
				<-ended
				eventually(t, func() bool { return h.status(l).Active == 0 }, func() string { return "not closed" })
			})
		})
	}
}

// A connection that waits for its next turn goes on in another process.
func TestResumeBetweenTurns(t *testing.T) {
	m := newMover(t)
	m.open("web", spec(t, &listeners.HTTP{Body: make([]byte, 5000)}, "", "tcp4://127.0.0.1:0"))
	to := m.addr("web")
	for end := time.Now().Add(30 * time.Second); m.between < 3; {
		if time.Now().After(end) {
			t.Fatalf("%d moves of a connection that waits for its turn", m.between)
		}
		c := dial(t, to)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if n, _, err := asksMuch(c); err != nil || n != manyAnswers {
				t.Errorf("%d answers of %d: %v", n, manyAnswers, err)
			}
		}()
		eventually(t, func() bool { return m.status("web").Stats.Sent > 0 }, func() string { return "nothing is sent" })
		m.move(false)
		m.move(false)
		<-ended
	}
}
