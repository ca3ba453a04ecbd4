package manager

import (
	"context"
	"slices"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// ListenerStats are the numbers of one listener.
type ListenerStats struct {
	Info
	Counters                          listeners.Counters
	AcceptRate, ReceiveRate, SendRate Rate
}

// A Histogram is how long things took, or how many there were.
type Histogram = mux.Histogram

// LoopStats are the numbers of the loop.
type LoopStats struct {
	mux.Stats
	TurnRate  Rate
	BusyRatio float64 // of the last second
}

// Stats returns the numbers of up to most listeners whose names come after the
// one given, in order of their names; the histograms only with times. It reads
// a bounded number in one turn of the loop.
func (m *Manager) Stats(ctx context.Context, after string, most int, times bool) ([]ListenerStats, error) {
	some := m.entriesAfter(after, most)
	all := make([]ListenerStats, len(some))
	done := 0
	for chunk := range slices.Chunk(some, listBudget) {
		out := all[done : done+len(chunk)]
		infos := m.look(ctx, chunk, false, func(i int, c *listeners.Counters) { out[i].Counters = c.Copy(times) })
		m.mu.Lock()
		for i, e := range chunk {
			out[i].Info = infos[i]
			out[i].AcceptRate = e.past.rate(func(r reading) uint64 { return r.accepted })
			out[i].ReceiveRate = e.past.rate(func(r reading) uint64 { return r.received })
			out[i].SendRate = e.past.rate(func(r reading) uint64 { return r.sent })
		}
		m.mu.Unlock()
		done += len(chunk)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Loop returns the numbers of the loop.
func (m *Manager) Loop(ctx context.Context) (s LoopStats, err error) {
	err = m.on(ctx, func() error { s.Stats = m.loop.Stats(); return nil })
	m.mu.Lock()
	defer m.mu.Unlock()
	s.TurnRate, s.BusyRatio = m.loopPast.turns(), m.loopPast.busy()
	return s, err
}

// ResetPeaks begins the peaks and histograms of those listeners anew that still
// are there, and returns how many. It touches a bounded number in one turn.
func (m *Manager) ResetPeaks(ctx context.Context, names []string) (reset int, err error) {
	for chunk := range slices.Chunk(names, listBudget) {
		var some []*entry
		var lives []*listeners.Listener
		m.mu.Lock()
		for _, name := range chunk {
			if e := m.entries[name]; e != nil {
				some, lives = append(some, e), append(lives, e.live)
			}
		}
		m.mu.Unlock()
		if err := m.on(ctx, func() error {
			for i, e := range some {
				if lives[i] != nil {
					lives[i].ResetPeaks()
				} else {
					e.stats.ResetPeaks(0)
				}
			}
			return nil
		}); err != nil {
			return reset, err
		}
		reset += len(some)
	}
	return reset, nil
}

// ResetLoop begins the histograms of the loop anew.
func (m *Manager) ResetLoop(ctx context.Context) error {
	return m.on(ctx, func() error { m.loop.ResetPeaks(); return nil })
}
