package listeners_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// newHostOf is newHost with so many loops.
func newHostOf(t *testing.T, loops int) *host {
	t.Helper()
	t.Setenv("SOCKMGR_TEST_LOOPS", fmt.Sprint(loops))
	return newHost(t, "epoll", 0)
}

// isYoung reports whether no loop can have told yet how busy it is: until then
// connections are shared out by their number alone.
func isYoung(since time.Time) bool { return time.Since(since) < time.Second }

// openByLoop is how many connections each loop has.
func (h *host) openByLoop() (all []int64) {
	h.t.Helper()
	h.do(func() { all = h.set.Open() })
	return all
}

// served connects so many, each of which is served.
func served(t *testing.T, to net.Addr, n int) []net.Conn {
	t.Helper()
	all := make([]net.Conn, 0, n)
	for range n {
		c := dial(t, to)
		ask(t, c, []byte("x"))
		all = append(all, c)
	}
	return all
}

// Connections are shared out to the loops, and the listener is one thing: one
// number of connections, one sum of bytes, one list, one limit.
func TestLoops(t *testing.T) {
	began := time.Now()
	h := newHostOf(t, 4)
	l, counters := h.openCounted(spec(t, listeners.Echo{}, "max_connections=8", "tcp://127.0.0.1:0"))
	all := served(t, h.addr(l, 0), 8)
	if got := h.openByLoop(); isYoung(began) && !slices.Equal(got, []int64{2, 2, 2, 2}) {
		t.Errorf("connections by loop: %v", got)
	}
	loops := map[int]int{}
	for _, st := range h.conns() {
		loops[st.Loop]++
	}
	if isYoung(began) && len(loops) != 4 || len(h.conns()) != 8 {
		t.Errorf("listed by loop: %v", loops)
	}
	if st := h.status(l); st.Active != 8 || st.Stats.Accepted != 8 || st.Stats.Received != 8 || st.Stats.Sent != 8 || st.State != listeners.Limited {
		t.Errorf("%+v", st)
	}
	ninth := dial(t, h.addr(l, 0))
	ninth.Write([]byte("y"))
	h.until(20 * time.Millisecond)
	if st := h.status(l); st.Active != 8 || st.Stats.Accepted != 8 {
		t.Errorf("over the limit: %+v", st)
	}
	for _, c := range all { // wherever it is, its place is free for the next
		c.Close()
		if c == all[0] && string(receive(t, ninth)) != "y" {
			t.Error("not served")
		}
	}
	eventually(t, func() bool { return h.status(l).Active == 1 }, func() string { return fmt.Sprint(h.status(l)) })
	h.do(func() { l.Stop(longTime) })
	ninth.Close()
	eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
	c := counters()
	if c.Accepted != 9 || c.Received != 9 || c.Sent != 9 || c.ActivePeak != 8 || c.ClosedBy[listeners.ClosedByPeer] != 9 || c.Times.Duration.Count() != 9 {
		t.Errorf("%+v", c)
	}
	if got := h.openByLoop(); !slices.Equal(got, []int64{0, 0, 0, 0}) {
		t.Errorf("connections by loop: %v", got)
	}
}

// A source has as many connections as it may, on whatever loop they are, also
// after the rule has changed.
func TestLoopsSource(t *testing.T) {
	h := newHostOf(t, 3)
	l := h.open(spec(t, listeners.Echo{}, "max_connections_per_source=4", "tcp://127.0.0.1:0"))
	all := served(t, h.addr(l, 0), 4)
	refused := func() {
		t.Helper()
		if got, err := io.ReadAll(dial(t, h.addr(l, 0))); err != nil || len(got) > 0 {
			t.Errorf("%q, %v", got, err)
		}
	}
	refused()
	all[1].Close()
	eventually(t, func() bool { return h.status(l).Active == 3 }, func() string { return "not closed" })
	all[1] = served(t, h.addr(l, 0), 1)[0]
	refused()
	h.tune(l, "max_connections_per_source", "5")
	h.tune(l, "source_prefix_v4", "8")
	served(t, h.addr(l, 0), 1)
	refused()
	if st := h.status(l); st.Active != 5 || st.Stats.Rejected != 3 {
		t.Errorf("%+v", st)
	}
}

// A drain reaches the connections of all loops, and what is left at its end is
// counted.
func TestLoopsDrain(t *testing.T) {
	began := time.Now()
	h := newHostOf(t, 4)
	web := h.open(spec(t, &listeners.HTTP{Body: []byte("hello")}, "", "tcp://127.0.0.1:0"))
	silent := h.open(spec(t, listeners.Discard{}, "", "tcp://127.0.0.1:0"))
	var readers []*bufio.Reader
	var conns []net.Conn
	for range 8 {
		c := dial(t, h.addr(web, 0))
		io.WriteString(c, get)
		r := bufio.NewReader(c)
		answer(t, c, r)
		conns, readers = append(conns, c), append(readers, r)
		dial(t, h.addr(silent, 0))
	}
	eventually(t, func() bool { return h.status(silent).Active == 8 }, func() string { return "not accepted" })
	for _, n := range h.openByLoop() {
		if n != 4 && isYoung(began) {
			t.Errorf("by loop: %v", h.openByLoop())
		}
	}
	h.do(func() { web.Stop(longTime); silent.Stop(30 * time.Millisecond) })
	for i, c := range conns {
		io.WriteString(c, get)
		if got := answer(t, c, readers[i]); !got.closes {
			t.Error("it was not the last")
		}
		ends(t, "web", c, readers[i])
	}
	for _, l := range []*listeners.Listener{web, silent} {
		eventually(t, func() bool { return h.status(l).State == listeners.Closed }, func() string { return "not closed" })
	}
	if d := h.status(silent).Drain; d.Initial != 8 || d.Cut != 8 {
		t.Errorf("%+v", d)
	}
}

// Settings reach the connections of all loops; those that only one loop can heed
// bring them there.
func TestLoopsTune(t *testing.T) {
	began := time.Now()
	h := newHostOf(t, 4)
	l := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	all := served(t, h.addr(l, 0), 8)
	h.tune(l, "read_rate_bytes", "1000000")
	h.tune(l, "read_rate_bytes", "0")
	if got := h.openByLoop(); isYoung(began) && !slices.Equal(got, []int64{2, 2, 2, 2}) {
		t.Errorf("by loop: %v", got)
	}
	h.tune(l, "fault.delay", "10ms")
	if got := h.openByLoop(); !slices.Equal(got, []int64{8, 0, 0, 0}) {
		t.Errorf("by loop: %v", got)
	}
	for _, c := range all {
		atLeast(t, 20*time.Millisecond, func() { ask(t, c, []byte("x")) })
	}
	h.tune(l, "fault.delay", "0")
	served(t, h.addr(l, 0), 3)
	if got := h.openByLoop(); isYoung(began) && (got[0] != 8 || got[1]+got[2]+got[3] != 3) {
		t.Errorf("by loop: %v", got)
	}
	h.tune(l, "listener_write_rate_bytes", "100000000")
	if got := h.openByLoop(); got[0] != 11 {
		t.Errorf("by loop: %v", got)
	}
	h.tune(l, "listener_write_rate_bytes", "0")
	fresh := served(t, h.addr(l, 0), 3)
	h.tune(l, "idle_timeout", "20ms")
	for _, c := range append(all, fresh...) {
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
	}
}

// Relayed connections are on all loops, and their upstreams' numbers are right.
func TestLoopsForward(t *testing.T) {
	began := time.Now()
	h := newHostOf(t, 4)
	up := []*listeners.Listener{h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0")), h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))}
	l := h.open(spec(t, forwardTo(h.addr(up[0], 0), h.addr(up[1], 0)), "", "tcp://127.0.0.1:0"))
	all := served(t, h.addr(l, 0), 16)
	loops := map[int]int{}
	for _, st := range h.conns() {
		loops[st.Loop]++
		if st.Remote.IP.Port() != 0 && st.Upstream.IP.Port() == 0 && st.Listener == l.Name && st.State != listeners.ConnOpen {
			t.Errorf("%+v", st)
		}
	}
	if len(loops) != 4 && isYoung(began) {
		t.Errorf("by loop: %v", loops)
	}
	active := func() (n []int64) {
		for _, u := range h.status(l).Upstreams {
			n = append(n, u.Active)
		}
		return n
	}
	if got := active(); !slices.Equal(got, []int64{8, 8}) {
		t.Errorf("active: %v", got)
	}
	for _, c := range all {
		c.Close()
	}
	eventually(t, func() bool { return h.status(l).Active == 0 && slices.Equal(active(), []int64{0, 0}) }, func() string { return fmt.Sprint(active()) })
}

// Connections at work go from loop to loop, and nothing is lost or changed.
func TestLoopsMove(t *testing.T) {
	const rounds, clientsOf = 8, 2
	h := newHostOf(t, 4)
	up := h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0"))
	body := bytes.Repeat([]byte("body"), 3000)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	work := func(f func(c net.Conn) error, c net.Conn) {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(c); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	echoed := func(c net.Conn) error {
		data := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, 9000)
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(data)
			sent <- err
		}()
		got := make([]byte, len(data))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return fmt.Errorf("what came back is not what was sent")
		}
		return <-sent
	}
	for _, options := range []string{"", "read_rate_bytes=50000000", "idle_timeout=20s"} {
		for _, handler := range []listeners.HandlerSpec{listeners.Echo{}, forwardTo(h.addr(up, 0))} {
			l := h.open(spec(t, handler, options, "tcp://127.0.0.1:0"))
			for range clientsOf {
				work(echoed, dial(t, h.addr(l, 0)))
			}
		}
	}
	web := h.open(spec(t, &listeners.HTTP{Body: body}, "", "tcp://127.0.0.1:0"))
	for range clientsOf {
		c := dial(t, h.addr(web, 0))
		r := bufio.NewReader(c)
		work(func(c net.Conn) error {
			if _, err := io.WriteString(c, get+get); err != nil {
				return err
			}
			for range 2 {
				if got := answer(t, c, r); !bytes.Equal(got.body, body) {
					return fmt.Errorf("%d bytes", len(got.body))
				}
			}
			return nil
		}, c)
	}
	homes, away := 0, make([]int64, 4)
	for range rounds {
		home := make(chan struct{})
		h.do(func() { h.set.CallHome(func() { close(home) }) })
		<-home
		if got := h.openByLoop(); got[1]+got[2]+got[3] == 0 {
			homes++
		}
		h.do(func() { h.set.SendOut(true) })
		h.until(5 * time.Millisecond)
		for i, n := range h.openByLoop() {
			away[i] += n
		}
	}
	if homes != rounds || away[1]+away[2]+away[3] == 0 {
		t.Errorf("all at home %d of %d times; between them by loop %v", homes, rounds, away)
	}
	close(stop)
	busy.Wait()
}
