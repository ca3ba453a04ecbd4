package manager

import (
	"context"
	"fmt"
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
	// One where nothing comes is looked at in every sampleQuiet-th look only: the
	// kernel may drop what the loop never hears of.
	sampleQuiet = 15
	// A queue is high from 75 % on, and no longer once it is below 50 %: so
	// that one that swings around a mark is not told of at every swing.
	highNumerator, lowNumerator, markDenominator = 3, 2, 4
)

// seen is what the sampler saw of a listener last.
type seen struct {
	live  *listeners.Listener
	high  bool
	drops uint64
}

// sample looks at all queues and drop counters now and then, until Shutdown.
func (m *Manager) sample() {
	next := time.NewTimer(sampleInterval)
	defer next.Stop()
	look := 0
	for {
		select {
		case <-m.ending:
			return
		case <-next.C:
		}
		began := time.Now()
		m.sampleAll(look)
		look++
		next.Reset(min(max(sampleShare*time.Since(began), sampleInterval), sampleMost))
	}
}

// sampleAll looks at those that may have changed, and at a part of the others.
func (m *Manager) sampleAll(look int) {
	m.mu.Lock()
	all := make([]*entry, 0, len(m.names))
	for _, name := range m.names {
		if e := m.entries[name]; e.live != nil && !e.stopping {
			all = append(all, e)
		}
	}
	m.mu.Unlock()
	lives := make([]*listeners.Listener, 0, sampleBudget)
	samples := make([]listeners.Sample, sampleBudget)
	at := look % sampleQuiet // whose turn it is
	for chunk := range slices.Chunk(all, sampleBudget) {
		lives = lives[:0]
		for _, e := range chunk {
			lives = append(lives, m.liveOf(e))
		}
		err := m.on(context.Background(), func() error {
			for i, l := range lives {
				if l == nil {
					continue
				}
				last := &chunk[i].seen
				if stirred := l.Stirred(); stirred || last.live != l || last.high || (i+at)%sampleQuiet == 0 {
					samples[i] = l.Sample()
				} else {
					lives[i] = nil // as it was
				}
			}
			return nil
		})
		if err != nil {
			return // the loop has ended
		}
		for i, e := range chunk {
			if lives[i] != nil {
				m.judge(e, lives[i], samples[i])
			}
		}
	}
}

// judge tells of what an operator should look at.
func (m *Manager) judge(e *entry, l *listeners.Listener, s listeners.Sample) {
	if e.seen.live != l { // bound anew: the kernel counts from zero
		e.seen = seen{live: l}
	}
	grown := s.Drops - min(e.seen.drops, s.Drops)
	e.seen.drops = s.Drops
	part := uint64(s.Waiting) * markDenominator
	if grown == 0 && !e.seen.high && part < uint64(s.Limit)*highNumerator {
		return // nearly always: ten thousand times in two seconds
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
