package manager

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// A lookout goes by what happens, once a second. Where nothing does it does
// nothing: a loop that sleeps is not woken, and of listeners at which nothing came
// only a few are looked at.
type lookout struct {
	m        *Manager
	moving   map[*entry]bool // have a history
	restless map[*entry]bool // their queues are looked at next
	quiet    string          // the last of the others that was looked at
	readings []reading
	samples  []listeners.Sample
	unseen   []bool // of samples: to be looked at again
}

func newLookout(m *Manager) *lookout {
	return &lookout{
		m: m, moving: map[*entry]bool{}, restless: map[*entry]bool{},
		readings: make([]reading, rateBudget), samples: make([]listeners.Sample, sampleBudget), unseen: make([]bool, sampleBudget),
	}
}

// lookOut runs until Shutdown.
func (m *Manager) lookOut() {
	tick := time.NewTicker(rateStep)
	defer tick.Stop()
	w := newLookout(m)
	next := time.Now().Add(sampleInterval)
	for {
		if w.measure() != nil {
			return // the loop has ended
		}
		if began := time.Now(); next.Sub(began) < rateStep/2 {
			if w.sample() != nil {
				return
			}
			next = began.Add(min(max(sampleShare*time.Since(began), sampleInterval), sampleMost))
		}
		select {
		case <-m.ending:
			return
		case <-tick.C:
		}
	}
}

// measure reads what was counted since it was called last.
func (w *lookout) measure() error {
	stirred := map[*entry]bool{}
	for number, loop := range w.m.loops {
		if err := w.measureLoop(number, loop, stirred); err != nil {
			return err
		}
	}
	w.m.mu.Lock()
	for _, e := range w.m.fresh {
		w.restless[e] = true
	}
	w.m.fresh = nil
	w.m.mu.Unlock()
	return w.measureMoving(stirred)
}

// measureLoop adds a reading to the history of a loop, and notes where something
// has happened. Of a loop that had no turn since there is nothing to be asked.
func (w *lookout) measureLoop(number int, loop *mux.Loop, stirred map[*entry]bool) error {
	m := w.m
	var r loopReading
	m.mu.Lock()
	if past := m.loopPast[number]; len(past) > 0 {
		r = past[0]
	}
	m.mu.Unlock()
	for more := loop.Turned(); more; {
		var some []*listeners.Listener
		if err := m.onLoop(context.Background(), number, func() error {
			s := loop.Stats()
			r.busy, r.turns = s.Busy, s.Turns
			some = m.sets[number].Stirred(rateBudget)
			loop.Looked()
			return nil
		}); err != nil {
			return err
		}
		w.note(number, some, stirred)
		more = len(some) == rateBudget
	}
	r.at, r.cpu = time.Since(m.began), cpuTime()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loopPast[number] = m.loopPast[number].add(r)
	return nil
}

// note finds the entries of listeners, or of shards, at which something has happened.
func (w *lookout) note(number int, some []*listeners.Listener, stirred map[*entry]bool) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for _, l := range some {
		e := w.m.entries[l.Name]
		if e == nil {
			continue // it is gone, or on its way: then it will be among those that are fresh
		}
		stirred[e] = true
		if number == 0 { // which has all sockets
			w.restless[e] = true
		}
	}
}

// measureMoving reads the counters of those that stirred. Others that move are as
// they were.
func (w *lookout) measureMoving(stirred map[*entry]bool) error {
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(stirred)), rateBudget) {
		if err := w.m.measureSome(chunk, w.readings); err != nil {
			return err
		}
	}
	for e := range stirred {
		w.moving[e] = true
	}
	at := time.Since(w.m.began)
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(w.moving)), rateBudget) {
		w.m.mu.Lock()
		for _, e := range chunk {
			if !stirred[e] {
				r := e.lastRead
				r.at = at
				e.measured(r)
			}
			if e.past == nil || w.m.entries[e.record.Name] != e {
				delete(w.moving, e)
			}
		}
		w.m.mu.Unlock()
	}
	return nil
}
