package manager

import (
	"context"

	"github.com/sockmgr/sockmgr/listeners"
)

// A glance is what is known of some entries without the loop, and what the loop
// knows of. It may be used again for others: all that there are take the memory of
// one turn's.
type glance struct {
	full     bool // of each socket too
	counting bool // numbers shall be there
	times    bool // with histograms

	infos   []Info
	numbers []ListenerStats
	lives   []*listeners.Listener // nil: not on the loop
	stats   []*listeners.Counters
	shards  [][]*listeners.Listener // what other loops have
}

// size makes room for n.
func (g *glance) size(n int) {
	if cap(g.infos) < n {
		g.infos, g.lives, g.stats, g.shards = make([]Info, n), make([]*listeners.Listener, n), make([]*listeners.Counters, n), make([][]*listeners.Listener, n)
		if g.counting {
			g.numbers = make([]ListenerStats, n)
		}
	}
	g.infos, g.lives, g.stats, g.shards = g.infos[:n], g.lives[:n], g.stats[:n], g.shards[:n]
}

// known has g begin with entries.
func (m *Manager) known(g *glance, entries []*entry) {
	g.size(len(entries))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range entries {
		info := &g.infos[i]
		*info = Info{Record: e.record, Started: e.started, Retry: e.retry, State: Stopped}
		g.lives[i], g.stats[i], g.shards[i] = e.live, e.stats, nil
		if e.failure != nil {
			info.State, info.Message = Failed, e.failure.Error()
		}
		if e.deleting {
			info.Message = "being deleted"
		}
		if g.counting {
			g.numbers[i] = ListenerStats{
				Info:        info,
				AcceptRate:  e.past.rate(func(r reading) uint64 { return r.accepted }),
				ReceiveRate: e.past.rate(func(r reading) uint64 { return r.received }),
				SendRate:    e.past.rate(func(r reading) uint64 { return r.sent }),
			}
		}
	}
	m.noteTriesLocked(g.infos)
}

// look has g read entries, in one turn of each loop.
func (m *Manager) look(ctx context.Context, g *glance, entries []*entry) {
	m.known(g, entries)
	_ = m.on(ctx, func() error { // when the loop has ended, nothing is live
		for i := range g.infos {
			info, l := &g.infos[i], g.lives[i]
			info.Stats = g.stats[i].Stats
			if g.counting {
				g.numbers[i].Counters = g.stats[i].Copy(g.times)
			}
			if l != nil {
				info.live(l.Status(g.full))
				g.shards[i] = l.Shards()
			}
			info.noteFaults()
			info.noteTries()
		}
		return nil
	})
	_ = m.eachShard(ctx, g.shards, func(i int, sh *listeners.Listener) { // as above
		g.infos[i].Stats.Add(sh.Counted())
		g.infos[i].Live.Stats.Add(sh.Counted())
		if g.counting {
			sh.AddTo(&g.numbers[i].Counters, g.times)
		}
	})
}

// lookAll looks at up to most listeners whose names come after the one given, in
// order of their names and a bounded number at once: f has those of each time.
func (m *Manager) lookAll(ctx context.Context, g *glance, after string, most int, f func()) error {
	var some []*entry
	for more := true; more; {
		some = m.entriesAfter(some[:0], after, min(most, listBudget))
		if more = len(some) == listBudget; len(some) == 0 {
			break
		}
		m.look(ctx, g, some)
		if err := ctx.Err(); err != nil {
			return err
		}
		f()
		after, most = g.infos[len(some)-1].Name, most-len(some)
	}
	return nil
}
