package mux

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A command is a func that was posted.
type command struct {
	run func()
	at  time.Duration // when, on the loop's clock
}

// Post queues f to run on the loop, after the events now being handled. Funcs
// run in the order they were posted. It returns ErrClosed when the loop has
// stopped; a loop that stops later does not run what is still queued. After any
// error f has not run and never will.
func (l *Loop) Post(f func()) error {
	at := time.Since(l.epoch) // before the lock: the wait for it counts
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.posted = append(l.posted, command{f, at})
	if l.woken {
		return nil // one wake-up a turn is enough
	}
	if err := l.wakeUp(); err != nil {
		last := len(l.posted) - 1
		l.posted[last] = command{}
		l.posted = l.posted[:last]
		return os.NewSyscallError("write eventfd", err)
	}
	l.woken = true
	return nil
}

func (l *Loop) wakeUp() error {
	one := [8]byte{1} // any number that is not zero
	for {
		switch _, err := unix.Write(l.wake, one[:]); {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN): // it is full, and so readable
			return nil
		default:
			return err
		}
	}
}

// Do runs f on the loop and returns its result. Never call it on the loop: it
// would wait for itself.
//
// The answer is certain: ctx.Err and ErrClosed mean that f has not run and
// never will, so the caller knows who must close what f was to take over.
// Caller and loop claim f by compare-and-swap, one to abandon it, the other to
// run it; whoever comes second obeys.
func (l *Loop) Do(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q, _ := l.questions.Get().(*question)
	if q == nil {
		q = newQuestion()
	}
	q.f = f
	if err := l.Post(q.run); err != nil {
		return err
	}
	select {
	case err := <-q.reply:
		q.f = nil
		q.claimed.Store(false)
		l.questions.Put(q) // the loop has done with it: that was the last
		return err
	case <-ctx.Done():
		if q.claimed.CompareAndSwap(false, true) {
			return ctx.Err()
		}
	case <-l.done:
		if q.claimed.CompareAndSwap(false, true) {
			return ErrClosed
		}
	}
	return <-q.reply
}

// A question is a func that a caller of Do waits for. One that was answered is used
// again; one that was abandoned may still be queued.
type question struct {
	f       func() error
	run     func() // what is posted
	claimed atomic.Bool
	reply   chan error // buffered: the loop never waits for a caller
}

func newQuestion() *question {
	q := &question{reply: make(chan error, 1)}
	q.run = func() {
		if q.claimed.CompareAndSwap(false, true) {
			q.reply <- q.f()
		}
	}
	return q
}

// Stop makes Run return at the end of a turn, after what was posted before
// Stop has run. It may be called more than once.
func (l *Loop) Stop() {
	_ = l.Post(func() { // fails only when it has stopped already
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
	})
}

// backlogged reports whether posted funcs were left over from the last turn.
func (l *Loop) backlogged() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posted) > 0
}

// runPosted runs what was posted up to now, at most commandsPerTurn of it;
// what those post waits for the next turn, so that a func that posts itself
// cannot starve the descriptors. ran tells whether there was something.
func (l *Loop) runPosted() (ran, closed bool) {
	l.mu.Lock()
	fs := l.posted
	rest := l.spare[:0]
	if len(fs) > commandsPerTurn {
		rest = append(rest, fs[commandsPerTurn:]...)
		clear(fs[commandsPerTurn:])
		fs = fs[:commandsPerTurn]
	}
	l.posted, l.spare = rest, nil
	l.woken = len(rest) > 0 // the next turn does not wait, so needs no waking
	l.mu.Unlock()
	for i, f := range fs {
		fs[i].run = nil
		l.stats.CommandLatency.Observe(micros(time.Since(l.epoch) - f.at))
		f.run()
		if l.stopped() {
			return true, true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = fs[:0]
	return len(fs) > 0, l.closed
}

func (l *Loop) stopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}
