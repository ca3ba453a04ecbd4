package mux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Budgets of one turn. What is left over is done in the next, after the
// descriptors that are ready have had theirs.
const (
	commandsPerTurn = 256
	timersPerTurn   = 1024
)

// ErrClosed is returned when the loop has stopped: the func has not run and
// never will.
var ErrClosed = errors.New("the event loop has stopped")

// A Handler is told that its descriptor can make progress. It must not block,
// and does a bounded amount of work: it is told again.
type Handler interface {
	Ready(ev Events)
}

// slot is what the loop knows of one descriptor number.
type slot struct {
	h   Handler // nil: free
	gen uint32  // grows with every use of the number
	off bool    // not with the poller: nothing is waited for
}

// A Loop calls Handlers from one goroutine, the one that called Run.
type Loop struct {
	poller Poller
	slots  []slot // indexed by descriptor
	ready  []Ready
	others others
	timers timerHeap
	epoch  time.Time     // when the loop was made
	wall   time.Time     // the same in the time of day
	now    time.Time     // when the turn began
	clock  time.Duration // now, counted from epoch
	wake   int           // eventfd: readable when something was posted

	stats  Stats         // loop only
	turned atomic.Bool   // since Looked
	rested time.Duration // when others last had their turn
	inTurn bool          // since beginTurn the loop has not gone to wait
	waits  uint64        // how often it has

	mu     sync.Mutex // guards the rest; held for a few instructions only
	posted []command
	spare  []command // the slice that posted does not use
	woken  bool      // wake has been written since the loop last looked
	closed bool
	done   chan struct{} // closed when Run returns

	questions sync.Pool // of *question: see Do
}

// NewLoop takes ownership of p. Close releases both, also when Run was never
// called.
func NewLoop(p Poller) (*Loop, error) { return newLoop(p, time.Now()) }

// ContinueLoop is NewLoop for a loop that goes on where another one, of another
// process perhaps, has ended: times on the clock of that one, whose Epoch is
// given, are times on its own.
func ContinueLoop(p Poller, epoch time.Duration) (*Loop, error) {
	now, err := monotonic()
	if err != nil {
		return nil, err
	}
	return newLoop(p, time.Now().Add(epoch-now))
}

// monotonic is the kernel's clock that all processes share until the next boot,
// and that Go's durations are measured with.
func monotonic() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}

// Beside is NewLoop for a loop that is to go by the clock of l: a time on one is
// the same time on the other. It may be called from any goroutine.
func (l *Loop) Beside(p Poller) (*Loop, error) { return newLoop(p, l.epoch) }

func newLoop(p Poller, epoch time.Time) (*Loop, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	now := time.Now()
	l := &Loop{poller: p, wake: fd, epoch: epoch, wall: epoch.Round(0), now: now, clock: now.Sub(epoch), done: make(chan struct{})}
	if err := l.others.open(); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if err := l.Add(fd, Readable, wakeHandler(fd)); err != nil {
		_ = unix.Close(fd)
		_ = l.others.close()
		return nil, err
	}
	l.stats.Descriptors = 0 // that one is our own
	return l, nil
}

// wakeHandler empties the eventfd; what was posted runs later in the turn.
type wakeHandler int

func (w wakeHandler) Ready(Events) {
	var count [8]byte
	_, _ = unix.Read(int(w), count[:]) // EAGAIN: it was empty already
}

// Poller is the name of the poller in use.
func (l *Loop) Poller() string { return l.poller.Name() }

// Now is the time at which this turn began.
func (l *Loop) Now() time.Time { return l.now }

// Clock is the same, counted from when the loop was made: what timers go by.
// It never goes back, whatever happens to the time of day.
func (l *Loop) Clock() time.Duration { return l.clock }

// Epoch is when Clock was zero, on CLOCK_MONOTONIC.
func (l *Loop) Epoch() (time.Duration, error) {
	now, err := monotonic()
	return now - time.Since(l.epoch), err
}

// clockStep is how far the time of day must be set for Time to follow. Less is
// in how exactly two clocks are read.
const clockStep = 10 * time.Millisecond

// Time turns a reading of Clock into a time of day. The same reading is the same
// time whenever it is asked for, unless the time of day is set in between.
func (l *Loop) Time(clock time.Duration) time.Time {
	if step := l.now.Round(0).Sub(l.wall) - l.clock; step > clockStep || step < -clockStep {
		l.wall = l.wall.Add(step)
	}
	return l.wall.Add(clock)
}

// Add begins to call h when fd is ready; with a want of 0 not yet: see Modify.
func (l *Loop) Add(fd int, want Events, h Handler) error {
	if fd < 0 {
		return os.NewSyscallError("add", unix.EBADF)
	}
	for fd >= len(l.slots) {
		l.slots = append(l.slots, slot{})
	}
	s := &l.slots[fd]
	if s.h != nil {
		return fmt.Errorf("descriptor %d is on the loop already", fd)
	}
	if want != 0 {
		if err := l.poller.Add(Key{fd, s.gen}, want); err != nil {
			return err
		}
	}
	s.h, s.off = h, want == 0
	l.stats.Descriptors++
	return nil
}

// Modify changes what fd is waited for. With 0 it stays on the loop and nothing
// is waited for, not even a hang-up, which pollers report unasked and for ever.
func (l *Loop) Modify(fd int, want Events) error {
	if l.HandlerOf(fd) == nil {
		return os.NewSyscallError("modify", unix.ENOENT)
	}
	s := &l.slots[fd]
	var err error
	switch was := s.off; {
	case want != 0 && !was:
		return l.poller.Modify(Key{fd, s.gen}, want)
	case want != 0:
		err = l.poller.Add(Key{fd, s.gen}, want)
	case !was:
		s.gen++ // events still on their way are for the past
		err = l.poller.Remove(fd)
	}
	if err == nil {
		s.off = want == 0
	}
	return err
}

// Remove forgets fd. Call it before fd is closed or passed on: the kernel goes
// on reporting a file that lives under another descriptor.
func (l *Loop) Remove(fd int) error {
	if l.HandlerOf(fd) == nil {
		return os.NewSyscallError("remove", unix.ENOENT)
	}
	s := &l.slots[fd]
	s.gen++ // events still on their way are for the past
	s.h = nil
	l.stats.Descriptors--
	if s.off {
		return nil
	}
	return l.poller.Remove(fd)
}

// HandlerOf returns the handler of fd, nil when there is none.
func (l *Loop) HandlerOf(fd int) Handler {
	if fd < 0 || fd >= len(l.slots) {
		return nil
	}
	return l.slots[fd].h
}

// Span is one more than the highest descriptor ever added: HandlerOf is nil
// from there on.
func (l *Loop) Span() int { return len(l.slots) }

// Run handles events until Stop, in the goroutine it is called in. It returns
// nil, or what the poller could not do.
//
// It is not locked to its OS thread: that would cost every func that is posted
// two more hand-offs between threads, and gains nothing.
func (l *Loop) Run() error {
	defer l.finish()
	idle, asked := true, false
	for {
		if err := l.wait(idle, asked); err != nil {
			return err
		}
		l.beginTurn()
		idle = len(l.ready) == 0
		l.dispatch()
		l.runTimers()
		ran, closed := l.runPosted()
		if closed {
			return nil
		}
		idle, asked = idle && !ran, ran
	}
}

// othersWait is how long others of the process, who answer calls, may wait for a
// loop that always has work: alone Go's scheduler takes 10 ms for each of the
// handful of steps that a call is made of. Where nobody waits it costs 2 us.
const othersWait = time.Millisecond

// wait fills l.ready. After a turn that had work it first asks without
// blocking, which costs less than the way through Go's scheduler. Before it
// blocks, whoever asked for something and has the answer may go on: in this
// thread, which need not wake another for that.
func (l *Loop) wait(idle, asked bool) (err error) {
	if !idle {
		if l.clock-l.rested >= othersWait {
			l.rested = l.endTurn()
			l.others.run()
		}
		if l.ready, err = l.poller.Wait(l.ready[:0], 0); err != nil || len(l.ready) > 0 {
			return err
		}
	}
	clock := l.endTurn()
	l.rested = clock
	if asked {
		runtime.Gosched()
		clock = time.Since(l.epoch)
	}
	timeout := l.untilTimer(clock)
	if l.backlogged() {
		timeout = 0
	}
	l.ready, err = l.poller.Wait(l.ready[:0], timeout)
	return err
}

func (l *Loop) dispatch() {
	for _, r := range l.ready {
		if s := &l.slots[r.FD]; s.gen == r.Gen && s.h != nil {
			s.h.Ready(r.Events)
		} else {
			l.stats.Stale++
		}
	}
}

// finish makes every later Post and Do fail, and those that wait too.
func (l *Loop) finish() {
	l.mu.Lock()
	l.closed = true
	l.posted = nil
	l.mu.Unlock()
	close(l.done)
}

// Close releases the poller. Call it after Run has returned, or instead of
// Run. What is still on the loop stays open; it is its owner's to close.
func (l *Loop) Close() error {
	return errors.Join(os.NewSyscallError("close", unix.Close(l.wake)), l.others.close(), l.poller.Close())
}
