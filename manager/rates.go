package manager

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

const (
	rateStep   = time.Second
	rateBudget = 512 // listeners in one turn: copying three numbers of each
	// Readings of the last seconds, and older ones at every tenth.
	recentReadings, coarseReadings, coarseSteps = 11, 7, 10
	loopReadings                                = 61
)

// A Rate is a counter's recent speed per second.
type Rate struct {
	Second, TenSeconds, Minute float64
	Series                     []float64 // one a second, oldest first; of the loop only
}

// reading is what the counters of a listener were.
type reading struct {
	at                       time.Duration // since the manager began
	accepted, received, sent uint64
}

func (r reading) same(s reading) bool {
	return r.accepted == s.accepted && r.received == s.received && r.sent == s.sent
}

// history is the last minute of a listener: 0.6 KB, which one that has been
// quiet for so long does not have.
type history struct {
	recent [recentReadings]reading // [0] is the newest
	coarse [coarseReadings]reading
	steps  int // since coarse was written
}

// newHistory is of a listener that was quiet until r.
func newHistory(quiet reading, now time.Duration) *history {
	h := &history{}
	for i := range h.recent {
		h.recent[i] = quiet
		h.recent[i].at = now - time.Duration(i+1)*rateStep
	}
	for i := range h.coarse {
		h.coarse[i] = quiet
		h.coarse[i].at = now - time.Duration(i*coarseSteps+1)*rateStep
	}
	return h
}

func (h *history) add(r reading) {
	copy(h.recent[1:], h.recent[:])
	h.recent[0] = r
	if h.steps++; h.steps == coarseSteps {
		h.steps = 0
		copy(h.coarse[1:], h.coarse[:])
		h.coarse[0] = r
	}
}

// quiet reports whether nothing happened for as long as it goes back.
func (h *history) quiet() bool { return h.recent[0].same(h.coarse[coarseReadings-1]) }

// rate is of one of the counters.
func (h *history) rate(of func(reading) uint64) Rate {
	if h == nil {
		return Rate{}
	}
	per := func(then reading) float64 {
		now := h.recent[0]
		return perSecond(of(now)-of(then), now.at-then.at)
	}
	return Rate{Second: per(h.recent[1]), TenSeconds: per(h.recent[recentReadings-1]), Minute: per(h.coarse[coarseReadings-1])}
}

func perSecond(n uint64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// loopReading is what loop and process had done.
type loopReading struct {
	at, busy, cpu time.Duration
	turns         uint64
}

// loopHistory is the last minute of loop and process, newest first.
type loopHistory []loopReading

func (h loopHistory) add(r loopReading) loopHistory {
	return slices.Insert(h[:min(len(h), loopReadings-1)], 0, r)
}

// back returns the reading of so many seconds ago, or the oldest.
func (h loopHistory) back(n int) loopReading { return h[min(n, len(h)-1)] }

func (h loopHistory) turns() Rate {
	var r Rate
	if len(h) < 2 {
		return r
	}
	over := func(n int) float64 { return perSecond(h[0].turns-h.back(n).turns, h[0].at-h.back(n).at) }
	r.Second, r.TenSeconds, r.Minute = over(1), over(10), over(60)
	for i := len(h) - 1; i > 0; i-- {
		r.Series = append(r.Series, perSecond(h[i-1].turns-h[i].turns, h[i-1].at-h[i].at))
	}
	return r
}

// busy is the share of the last second that the loop did not wait.
func (h loopHistory) busy() float64 {
	if len(h) < 2 || h[0].at <= h[1].at {
		return 0
	}
	return min(float64(h[0].busy-h[1].busy)/float64(h[0].at-h[1].at), 1)
}

// cpu is how many processors the process used in the last ten seconds.
func (h loopHistory) cpu() float64 {
	if len(h) < 2 || h[0].at <= h.back(10).at {
		return 0
	}
	return float64(h[0].cpu-h.back(10).cpu) / float64(h[0].at-h.back(10).at)
}

// measureSome reads the counters of some, at most as many as there is room for in readings.
func (m *Manager) measureSome(chunk []*entry, readings []reading) error {
	var shards [][]*listeners.Listener
	var lives []*listeners.Listener
	if len(m.loops) > 1 {
		shards = make([][]*listeners.Listener, len(chunk))
		for _, e := range chunk {
			lives = append(lives, m.liveOf(e))
		}
	}
	err := m.on(context.Background(), func() error {
		at := time.Since(m.began)
		for i, e := range chunk {
			readings[i] = readingOf(at, e.stats)
		}
		for i, l := range lives {
			if l != nil {
				shards[i] = l.Shards()
			}
		}
		return nil
	})
	if err == nil {
		err = m.eachShard(context.Background(), shards, func(i int, sh *listeners.Listener) {
			c := sh.Counted()
			readings[i].accepted += c.Accepted
			readings[i].received += c.Received
			readings[i].sent += c.Sent
		})
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range chunk {
		e.measured(readings[i])
	}
	return nil
}

// readingOf is for the loop only.
func readingOf(at time.Duration, c *listeners.Counters) reading {
	return reading{at: at, accepted: c.Accepted, received: c.Received, sent: c.Sent}
}

// measured notes a reading. Manager.mu is held.
func (e *entry) measured(r reading) {
	switch {
	case e.past == nil && e.lastRead.same(r):
		return
	case e.past == nil:
		e.past = newHistory(e.lastRead, r.at)
	}
	e.lastRead = r
	if e.past.add(r); e.past.quiet() {
		e.past = nil
	}
}

// cpuTime is what all threads have used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot be (getrusage(2))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
