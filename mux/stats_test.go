package mux_test

import (
	"context"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

func TestHistogram(t *testing.T) {
	var h mux.Histogram
	if h.Quantile(0.99) != 0 || h.Count() != 0 {
		t.Error("an empty histogram has no values")
	}
	places := map[uint64]int{0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 1 << 24: 24, 1<<24 + 1: 25, math.MaxUint64 >> 8: 25}
	for v, place := range places {
		before := h.Counts[place]
		h.Observe(v)
		if h.Counts[place] != before+1 {
			t.Errorf("%d is not in bucket %d: %v", v, place, h.Counts)
		}
		if place < mux.HistogramBuckets-1 && v > h.Bound(place) || place > 0 && v <= h.Bound(place-1) {
			t.Errorf("%d is outside the bounds of bucket %d", v, place)
		}
	}
	if h.Count() != uint64(len(places)) || h.Max != math.MaxUint64>>8 {
		t.Errorf("%+v", h)
	}
}

// A quantile is never below the exact answer, and less than twice it.
func TestQuantile(t *testing.T) {
	var h mux.Histogram
	for v := range uint64(1000) {
		h.Observe(v + 1)
	}
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 1} {
		exact := uint64(q * 1000)
		if got := h.Quantile(q); got < exact || got >= 2*exact && got > 1 {
			t.Errorf("%v: %d, exactly %d", q, got, exact)
		}
	}
	if h.Quantile(1) != 1000 {
		t.Errorf("%d", h.Quantile(1))
	}
}

// stats reads a loop that runs.
func stats(t *testing.T, l *mux.Loop) (s mux.Stats) {
	t.Helper()
	if err := l.Do(context.Background(), func() error { s = l.Stats(); return nil }); err != nil {
		t.Fatal(err)
	}
	return s
}

// What is on the loop and what it did is counted; a turn that takes long is a
// stall, time spent waiting is not time spent busy.
func TestStats(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, _ := pair(t)
		if err := l.Add(a, mux.Readable, readyFunc(func(mux.Events) {})); err != nil {
			t.Fatal(err)
		}
		l.After(time.Hour, func() {})
		start(t, l)
		s := stats(t, l)
		if s.Descriptors != 1 || s.Timers != 1 || s.CommandLatency.Count() == 0 {
			t.Errorf("%+v", s)
		}
		waited := make(chan struct{})
		if err := l.Post(func() { l.After(50*time.Millisecond, func() { close(waited) }) }); err != nil {
			t.Fatal(err)
		}
		<-waited
		if now := stats(t, l); now.Clock-s.Clock < 50*time.Millisecond || now.Busy-s.Busy > 40*time.Millisecond {
			t.Errorf("busy for %v of %v", now.Busy-s.Busy, now.Clock-s.Clock)
		}
		s = stats(t, l)
		if err := l.Do(t.Context(), func() error { // another command cannot run meanwhile
			for end := time.Now().Add(2 * mux.StallLimit); time.Now().Before(end); {
				runtime.Gosched()
			}
			return l.Post(func() {})
		}); err != nil {
			t.Fatal(err)
		}
		if err := l.Do(t.Context(), func() error { return l.Remove(a) }); err != nil {
			t.Fatal(err)
		}
		now := stats(t, l)
		if now.Stalls <= s.Stalls || now.Busy-s.Busy < 2*mux.StallLimit || now.Descriptors != 0 || now.TurnDuration.Max < 10_000 {
			t.Errorf("%+v", now)
		}
		if now.Turns <= s.Turns || now.TurnDuration.Count() > now.Turns || now.EventsPerTurn.Sum != now.Events {
			t.Errorf("%+v", now)
		}
		if err := l.Do(t.Context(), func() error { l.ResetPeaks(); return nil }); err != nil {
			t.Fatal(err)
		}
		if again := stats(t, l); again.Turns < now.Turns || again.Stalls < now.Stalls || again.TurnDuration.Count() >= now.TurnDuration.Count() {
			t.Errorf("%+v", again)
		}
	})
}
