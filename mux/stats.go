package mux

import "time"

// StallLimit is how long a turn may take. Every descriptor waits for it: five
// milliseconds are a thousand ordinary turns, and more than any budgeted turn
// takes on a machine that has a processor for the loop.
const StallLimit = 5 * time.Millisecond

// Stats are what a Loop has done, and how it does.
//
// A turn begins when Wait returns and ends when the loop goes to wait again,
// or, when it need not wait, with the next turn. That it has no processor while
// others have is part of it, since clients wait for that too.
type Stats struct {
	Clock  time.Duration // of the loop, when this was read
	Busy   time.Duration // in all turns that are over
	Turns  uint64
	Events uint64
	Stale  uint64 // events for a registration that was gone
	Stalls uint64 // turns longer than StallLimit

	TurnDuration   Histogram // microseconds
	EventsPerTurn  Histogram // turns without events left out
	CommandLatency Histogram // microseconds from Post to the run

	Descriptors int // on the loop
	Timers      int // set
	Commands    int // posted and not run
}

// Stats is for the loop only.
func (l *Loop) Stats() Stats {
	s := l.stats
	s.Clock = time.Since(l.epoch)
	s.Timers = len(l.timers)
	l.mu.Lock()
	s.Commands = len(l.posted)
	l.mu.Unlock()
	return s
}

// Turned reports whether there was a turn since that in which Looked was called
// last. It may be called from any goroutine, and wakes nobody: of a loop that
// sleeps there is nothing new to be read.
func (l *Loop) Turned() bool { return l.turned.Load() }

// Looked says that what there is was read, in this turn. It is for the loop only.
func (l *Loop) Looked() { l.turned.Store(false) }

// Busy is Stats.Busy alone. It is for the loop only.
func (l *Loop) Busy() time.Duration { return l.stats.Busy }

// Waits is how often the loop had nothing to do. Who is told twice without one
// between has more to come, or others have. It is for the loop only.
func (l *Loop) Waits() uint64 { return l.waits }

// Add adds the stats of another loop, so that s is of all together. The clock stays.
func (s *Stats) Add(o *Stats) {
	s.Busy += o.Busy
	s.Turns += o.Turns
	s.Events += o.Events
	s.Stale += o.Stale
	s.Stalls += o.Stalls
	s.TurnDuration.Add(&o.TurnDuration)
	s.EventsPerTurn.Add(&o.EventsPerTurn)
	s.CommandLatency.Add(&o.CommandLatency)
	s.Descriptors += o.Descriptors
	s.Timers += o.Timers
	s.Commands += o.Commands
}

// ResetPeaks begins the histograms anew. Counters never go back. It is for the
// loop only.
func (l *Loop) ResetPeaks() {
	l.stats.TurnDuration, l.stats.EventsPerTurn, l.stats.CommandLatency = Histogram{}, Histogram{}, Histogram{}
}

// beginTurn reads the clock, which is all that a turn of a busy loop reads.
func (l *Loop) beginTurn() {
	l.now = time.Now()
	clock := l.now.Sub(l.epoch)
	if l.inTurn { // it did not wait
		l.account(clock)
	}
	l.clock, l.inTurn = clock, true
	if !l.turned.Load() { // nearly never
		l.turned.Store(true)
	}
	l.stats.Turns++
	if n := uint64(len(l.ready)); n > 0 {
		l.stats.Events += n
		l.stats.EventsPerTurn.Observe(n)
	}
}

// endTurn is called before the loop waits. It returns the time.
func (l *Loop) endTurn() time.Duration {
	clock := time.Since(l.epoch)
	l.waits++
	if l.inTurn {
		l.inTurn = false
		l.account(clock)
	}
	return clock
}

// account counts the turn that ended at clock.
func (l *Loop) account(clock time.Duration) {
	took := clock - l.clock
	l.stats.Busy += took
	l.stats.TurnDuration.Observe(micros(took))
	if took > StallLimit {
		l.stats.Stalls++
	}
}

// micros rounds up, so that a value is never above the bound of its bucket.
func micros(d time.Duration) uint64 {
	return uint64((max(d, 0) + time.Microsecond - 1) / time.Microsecond)
}
