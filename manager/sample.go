package manager

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

const (
	// sampleInterval is between two looks, unless these take so long, of very
	// many listeners, that they would cost more than 1/sampleShare of a core.
	sampleInterval = 2 * time.Second
	sampleShare    = 150
	sampleMost     = 30 * time.Second
	sampleBudget   = 256 // listeners in one turn
	// quietBudget is how many of those where nothing comes are asked in one look: the
	// kernel may drop what the loop never hears of.
	quietBudget = 512
	// A queue is high from 75 % on, and no longer once it is below 50 %: so
	// that one that swings around a mark is not told of at every swing.
	highNumerator, lowNumerator, markDenominator = 3, 2, 4
)

// seen is what the lookout saw of a listener last.
type seen struct {
	live  *listeners.Listener
	high  bool
	drops uint64
}

// sample looks at the queues of those where something has happened or may wait
// unseen, and at the drops of a few of the others.
func (w *lookout) sample() error {
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(w.restless)), sampleBudget) {
		if err := w.sampleSome(chunk); err != nil {
			return err
		}
	}
	return w.sampleQuiet()
}

// livesOf are the listeners of entries; nil of those that are on no loop, or about
// to leave it.
func (m *Manager) livesOf(some []*entry) []*listeners.Listener {
	lives := make([]*listeners.Listener, len(some))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range some {
		if !e.stopping {
			lives[i] = e.live
		}
	}
	return lives
}

func (w *lookout) sampleSome(some []*entry) error {
	lives := w.m.livesOf(some)
	if err := w.m.on(context.Background(), func() error {
		for i, l := range lives {
			if l != nil {
				w.samples[i], w.unseen[i] = l.Sample(), l.Unseen()
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for i, e := range some {
		if lives[i] != nil {
			w.m.judge(e, lives[i], w.samples[i])
		}
		if lives[i] == nil || !w.unseen[i] && !e.seen.high {
			delete(w.restless, e)
		}
	}
	return nil
}

// sampleQuiet asks for the drops of some of those where nothing came: nothing can
// wait there, but the kernel may drop what the loop never hears of.
func (w *lookout) sampleQuiet() error {
	some := w.m.entriesAfter(nil, w.quiet, quietBudget)
	if len(some) < quietBudget {
		w.quiet = "" // the first is next
	} else {
		w.m.with(some[len(some)-1], func(e *entry) { w.quiet = e.record.Name })
	}
	some = slices.DeleteFunc(some, func(e *entry) bool { return w.restless[e] })
	lives := w.m.livesOf(some)
	if !slices.ContainsFunc(lives, func(l *listeners.Listener) bool { return l != nil }) {
		return nil // no loop is woken for nothing
	}
	drops := make([]uint64, len(some))
	if err := w.m.on(context.Background(), func() error {
		for i, l := range lives {
			if l != nil {
				drops[i] = l.Drops()
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for i, e := range some {
		if lives[i] != nil {
			w.m.judge(e, lives[i], listeners.Sample{Drops: drops[i]})
		}
	}
	return nil
}

// judge tells of what an operator should look at.
func (m *Manager) judge(e *entry, l *listeners.Listener, s listeners.Sample) {
	if e.seen.live != l { // bound anew: the kernel counts from zero
		e.seen = seen{live: l}
	}
	grown := s.Drops - min(e.seen.drops, s.Drops)
	e.seen.drops = s.Drops
	part := uint64(s.Waiting) * markDenominator
	if grown == 0 && !e.seen.high && (s.Limit == 0 || part < uint64(s.Limit)*highNumerator) {
		return // nearly always
	}
	event := Event{Resource: "listeners/" + l.Name, Severity: Warning, Attributes: map[string]string{
		"waiting": fmt.Sprint(s.Waiting), "limit": fmt.Sprint(s.Limit), "drops": fmt.Sprint(s.Drops),
	}}
	if grown > 0 && !s.Stalled { // then it is what was asked for
		event.Type = "listener.drops"
		event.Message = fmt.Sprintf("%s: the kernel dropped %d more connections or datagrams; %d in all", l.Name, grown, s.Drops)
		m.tell(context.Background(), event)
	}
	switch {
	case s.Limit > 0 && !e.seen.high && part >= uint64(s.Limit)*highNumerator:
		e.seen.high = true
		event.Type = "listener.queue_high"
		event.Message = fmt.Sprintf("%s: %d connections wait to be accepted, of %d that may", l.Name, s.Waiting, s.Limit)
		m.tell(context.Background(), event)
	case e.seen.high && part < uint64(s.Limit)*lowNumerator:
		e.seen.high = false
		event.Type, event.Severity = "listener.queue_normal", Notice
		event.Message = fmt.Sprintf("%s: %d connections wait to be accepted again, of %d that may", l.Name, s.Waiting, s.Limit)
		m.tell(context.Background(), event)
	}
}
