package manager

import (
	"context"
	"slices"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// ListenerStats are the numbers of one listener.
type ListenerStats struct {
	*Info
	Counters                          listeners.Counters
	AcceptRate, ReceiveRate, SendRate Rate
}

// A Histogram is how long things took, or how many there were.
type Histogram = mux.Histogram

// LoopStats are the numbers of the loop.
type LoopStats struct {
	mux.Stats
	Connections int64 // open
	TurnRate    Rate
	BusyRatio   float64 // of the last second
}

// Stats passes on the numbers of up to most listeners whose names come after the
// one given, in order of their names; the histograms only with times. What it
// points to is another's once f returns. It reads a bounded number in one turn of
// the loop.
func (m *Manager) Stats(ctx context.Context, after string, most int, times bool, f func(*ListenerStats)) error {
	g := glance{counting: true, times: times}
	return m.lookAll(ctx, &g, after, most, func() {
		for i := range g.numbers[:len(g.infos)] {
			f(&g.numbers[i])
		}
	})
}

// Loops returns the numbers of every loop, the first one first: that has all
// listening sockets.
func (m *Manager) Loops(ctx context.Context) ([]LoopStats, error) {
	all := make([]LoopStats, len(m.loops))
	err := m.on(ctx, func() error {
		for i, n := range m.set.Open() {
			all[i].Connections = n
		}
		return nil
	})
	for number := range all {
		if err == nil {
			err = m.onLoop(ctx, number, func() error { all[number].Stats = m.loops[number].Stats(); return nil })
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range all {
		all[i].TurnRate, all[i].BusyRatio = m.loopPast[i].turns(), m.loopPast[i].busy()
	}
	return all, err
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

// ResetLoops begins the histograms of the loops anew.
func (m *Manager) ResetLoops(ctx context.Context) error {
	for number, loop := range m.loops {
		if err := m.onLoop(ctx, number, func() error { loop.ResetPeaks(); return nil }); err != nil {
			return err
		}
	}
	return nil
}
