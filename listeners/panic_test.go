package listeners_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// Fragile is a handler that echoes, and panics where At says.
type Fragile struct{ At string }

func (*Fragile) Kind() string             { return "echo" }
func (*Fragile) Datagram() bool           { return true }
func (*Fragile) Validate() error          { return nil }
func (f *Fragile) New() listeners.Handler { return &fragile{f.At} }
func (f *fragile) at(place string)        { f.fail(f.place == place) }
func (*fragile) fail(now bool) {
	if now {
		var none *Fragile
		none.At = "nowhere"
	}
}
func (f *fragile) Expired(listeners.Peer) error       { f.at("expired"); return nil }
func (f *fragile) Drain(listeners.Peer) bool          { f.at("drain"); return true }
func (f *fragile) Rest(listeners.Peer, time.Duration) { f.at("rest") }

type fragile struct{ place string }

func (f *fragile) Open(p listeners.Peer) (listeners.Handler, error) {
	f.at("open")
	if f.place == "expired" {
		p.SetDeadline(p.Now().Add(time.Millisecond))
	}
	if f.place == "feed" {
		return &feeder{fragile{f.place}}, nil
	}
	return f, nil
}

func (f *fragile) Handle(p listeners.Peer, data []byte) (int, error) {
	f.fail(f.place == "handle" && strings.HasPrefix(string(data), "panic"))
	return p.Write(data)
}

type feeder struct{ fragile }

func (f *feeder) Feed(listeners.Peer) error { f.at("feed"); return nil }

// panicHost tells of panics: of the first of a listener, and of its rests.
func panicHost(t *testing.T, poller string) (*host, chan time.Duration) {
	t.Helper()
	h, told := newHost(t, poller, 0), make(chan time.Duration, 100)
	h.set = listeners.NewSet(listeners.SetConfig{
		Loop: h.loop, Log: hclog.New(&hclog.LoggerOptions{Output: &h.log, Level: hclog.Warn}),
		Panicked: func(_ *listeners.Listener, _ string, _ uint64, pause time.Duration) { told <- pause },
	})
	return h, told
}

// A handler that panics loses its connection, wherever it does; others go on.
func TestPanicClosesOneConnection(t *testing.T) {
	for _, place := range []string{"open", "handle", "feed", "expired", "drain", "rest"} {
		t.Run(place, func(t *testing.T) {
			h, told := panicHost(t, mux.Pollers()[0])
			other := dial(t, h.addr(h.open(spec(t, listeners.Echo{}, "", "tcp://127.0.0.1:0")), 0))
			l, counters := h.openCounted(spec(t, &Fragile{place}, "", "tcp://127.0.0.1:0"))
			conn := dial(t, h.addr(l, 0))
			eventually(t, func() bool { return h.stats(l).Accepted == 1 }, func() string { return "not accepted" })
			switch place {
			case "handle":
				write(t, conn, "well")
				if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
				write(t, conn, "panic")
			case "drain", "rest":
				h.do(func() { l.Stop(5 * time.Second) })
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%d bytes: %v", n, err)
			}
			if pause := <-told; pause != 0 {
				t.Errorf("it rests for %v", pause)
			}
			h.wantClosed(l, counters, listeners.ClosedByError, 1)
			if h.log.count("nil pointer dereference") != 1 || h.log.count("panic_test.go") == 0 {
				t.Errorf("logged %s", h.log.text.String())
			}
			write(t, other, "on")
			if _, err := io.ReadFull(other, make([]byte, 2)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Ten panics in a minute give the listener a rest; clients wait in the kernel.
// Another handler serves them at once.
func TestPanicsGiveARest(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			h, told := panicHost(t, mux.Pollers()[0])
			l := h.open(spec(t, &Fragile{"handle"}, "", network+"://127.0.0.1:0"))
			to := h.addr(l, 0)
			for range 10 {
				conn := dial(t, to)
				write(t, conn, "panic")
				if network == "tcp" {
					_, _ = io.ReadAll(conn)
				}
			}
			if first, second := <-told, <-told; first != 0 || second != 30*time.Second {
				t.Errorf("told of pauses of %v and %v", first, second)
			}
			st := h.status(l)
			if st.State != listeners.Limited || !strings.Contains(st.Limit, "panicked") {
				t.Errorf("%v: %s", st.State, st.Limit)
			}
			conn := dial(t, to)
			write(t, conn, "later")
			eventually(t, func() bool { return h.waits(l) }, func() string { return "it was taken" })
			h.do(func() { l.Settle(spec(t, listeners.Echo{}, "", network+"://127.0.0.1:0")) })
			if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
				t.Error(err)
			}
			if st := h.status(l); st.State != listeners.Running {
				t.Errorf("%v", st.State)
			}
			if n := h.log.count("debug.Stack"); n != 1 {
				t.Errorf("%d stacks are logged", n)
			}
		})
	}
}

// waits reports whether a client waits in the kernel.
func (h *host) waits(l *listeners.Listener) bool {
	q := h.status(l).Sockets[0].Queue
	return q.Accept > 0 || q.Receive > 0
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}
