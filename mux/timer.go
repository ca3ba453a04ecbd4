package mux

import (
	"container/heap"
	"time"
)

// An Alarm is told that a Timer it set is due.
type Alarm interface {
	Expired()
}

// A Timer calls an Alarm once, on the loop. The zero Timer is not set. It may
// be part of a larger struct; it must not be copied while it is set.
type Timer struct {
	at    time.Duration // on the loop's clock
	alarm Alarm
	place int32 // 1 + index in the heap; 0: not set
}

// Set reports whether t will call its Alarm.
func (t *Timer) Set() bool { return t.place != 0 }

// At is when, on the loop's clock.
func (t *Timer) At() time.Duration { return t.at }

// Arm sets t, or sets it anew, to call a when the loop's clock is at. A time
// that has passed means the next turn.
func (l *Loop) Arm(t *Timer, at time.Duration, a Alarm) {
	// Later than now, so that a timer that sets itself waits for the next turn.
	t.at, t.alarm = max(at, l.clock+1), a
	if t.Set() {
		heap.Fix(&l.timers, int(t.place)-1)
		return
	}
	heap.Push(&l.timers, t)
}

// Disarm makes sure that t does not call its Alarm.
func (l *Loop) Disarm(t *Timer) {
	if t.Set() {
		heap.Remove(&l.timers, int(t.place)-1)
	}
}

// After calls f on the loop once d has passed since the turn began. The Timer
// is for Disarm.
func (l *Loop) After(d time.Duration, f func()) *Timer {
	t := new(Timer)
	l.Arm(t, l.clock+d, alarmFunc(f))
	return t
}

type alarmFunc func()

func (f alarmFunc) Expired() { f() }

// runTimers calls what is due, at most timersPerTurn of it.
func (l *Loop) runTimers() {
	for n := 0; n < timersPerTurn && len(l.timers) > 0 && l.timers[0].at <= l.clock; n++ {
		heap.Pop(&l.timers).(*Timer).alarm.Expired()
	}
}

// untilTimer is how long the loop may wait from clock on; negative is for ever.
func (l *Loop) untilTimer(clock time.Duration) time.Duration {
	if len(l.timers) == 0 {
		return -1
	}
	return max(0, l.timers[0].at-clock)
}

type timerHeap []*Timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i+1), int32(j+1)
}

func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	*h = append(*h, t)
	t.place = int32(len(*h))
}

func (h *timerHeap) Pop() any {
	old := *h
	last := len(old) - 1
	t := old[last]
	old[last] = nil
	*h = old[:last]
	t.place = 0
	return t
}
