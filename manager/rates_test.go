package manager

import (
	"math"
	"testing"
	"time"
)

func accepted(r reading) uint64 { return r.accepted }

func near(a, b float64) bool { return math.Abs(a-b) < 0.001*max(1, b) }

// A burst after a quiet time is spread over the window; after a minute the
// history is let go.
func TestRates(t *testing.T) {
	e := &entry{}
	at := time.Hour
	step := func(n uint64) {
		at += rateStep
		e.measured(reading{at: at, accepted: n})
	}
	step(0)
	if e.past != nil || e.past.rate(accepted).Minute != 0 {
		t.Error("a quiet listener has no history")
	}
	step(120)
	if r := e.past.rate(accepted); !near(r.Second, 120) || !near(r.TenSeconds, 12) || r.Minute < 120.0/70 || r.Minute > 2 {
		t.Errorf("%+v", r)
	}
	step(121)
	if r := e.past.rate(accepted); !near(r.Second, 1) || !near(r.TenSeconds, 12.1) {
		t.Errorf("%+v", r)
	}
	for n := 0; e.past != nil; n++ {
		if r := e.past.rate(accepted); n > 10 && r.TenSeconds != 0 || n < 55 && (r.Minute < 121.0/71 || r.Minute > 121.0/60) {
			t.Errorf("after %d: %+v", n, r)
		}
		if n > 100 {
			t.Fatal("the history stays")
		}
		step(121)
	}
	step(122) // it does not count from the beginning again
	if r := e.past.rate(accepted); !near(r.Second, 1) {
		t.Errorf("%+v", r)
	}
}

func TestLoopHistory(t *testing.T) {
	var h loopHistory
	if h.busy() != 0 || h.cpu() != 0 || h.turns().Second != 0 {
		t.Error("nothing is known yet")
	}
	for i := range 100 {
		at := time.Duration(i) * rateStep
		h = h.add(loopReading{at: at, busy: at / 4, cpu: at / 2, turns: uint64(10 * i)})
	}
	r := h.turns()
	if len(h) != loopReadings || len(r.Series) != 60 || r.Second != 10 || r.TenSeconds != 10 || r.Minute != 10 || h.busy() != 0.25 || h.cpu() != 0.5 {
		t.Errorf("%d, %+v, %v, %v", len(h), r, h.busy(), h.cpu())
	}
}

func TestNetworkFiles(t *testing.T) {
	got := parsePairs("Tcp: A B MaxConn\nTcp: 1 2 -1\nUdp: A\nUdp: 3\nOdd: X\n")
	if len(got) != 3 || got["TcpA"] != 1 || got["TcpB"] != 2 || got["UdpA"] != 3 {
		t.Errorf("%v", got)
	}
	if got := parseLines("Udp6InErrors 7\nbad\nUdp6X y\n"); len(got) != 1 || got["Udp6InErrors"] != 7 {
		t.Errorf("%v", got)
	}
}
