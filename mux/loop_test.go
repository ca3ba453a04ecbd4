package mux_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// eachPoller runs f against every poller: one contract, three kernels' views.
// It ends by counting descriptors and goroutines.
func eachPoller(t *testing.T, f func(t *testing.T, l *mux.Loop)) {
	t.Helper()
	for _, name := range mux.Pollers() {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			l := newLoop(t, name)
			if got := l.Poller(); got != name {
				t.Errorf("Poller() = %q, want %q", got, name)
			}
			f(t, l)
		})
	}
}

func noLeaks(t *testing.T) {
	t.Helper()
	fds, goroutines := countFDs(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		if n := countFDs(t); n != fds {
			t.Errorf("%d descriptors before, %d after", fds, n)
		}
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
			if time.Now().After(end) {
				t.Errorf("%d goroutines before, %d after", goroutines, runtime.NumGoroutine())
				return
			}
		}
	})
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func newLoop(t *testing.T, name string) *mux.Loop {
	t.Helper()
	p, err := mux.NewPoller(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := mux.NewLoop(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// start runs l until the test ends.
func start(t *testing.T, l *mux.Loop) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// pair returns two connected descriptors that are closed when the test ends.
func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func write(t *testing.T, fd int, s string) {
	t.Helper()
	if _, err := unix.Write(fd, []byte(s)); err != nil {
		t.Error(err)
	}
}

type readyFunc func(mux.Events)

func (f readyFunc) Ready(ev mux.Events) { f(ev) }

func TestReadable(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, b := pair(t)
		got := make(chan string, 1)
		if err := l.Add(a, mux.Readable, readyFunc(func(mux.Events) {
			buf := make([]byte, 16)
			n, _ := unix.Read(a, buf)
			_ = l.Remove(a)
			got <- string(buf[:n])
		})); err != nil {
			t.Fatal(err)
		}
		start(t, l)
		write(t, b, "hi")
		if s := <-got; s != "hi" {
			t.Errorf("read %q, want %q", s, "hi")
		}
	})
}

// A socket that is writable says so until nothing is wanted of it, and a
// Modify changes what it says.
func TestModify(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, b := pair(t)
		var seen []mux.Events
		done := make(chan []mux.Events, 1)
		if err := l.Add(a, mux.Writable, readyFunc(func(ev mux.Events) {
			seen = append(seen, ev)
			switch len(seen) {
			case 2:
				if err := l.Modify(a, mux.Readable); err != nil {
					t.Error(err)
				}
				write(t, b, "x")
			case 3:
				_ = l.Remove(a)
				done <- seen
			}
		})); err != nil {
			t.Fatal(err)
		}
		start(t, l)
		want := []mux.Events{mux.Writable, mux.Writable, mux.Readable}
		if got := <-done; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
}

// A hang-up reaches who waits to read and who waits to write.
func TestHangUp(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		got := make(chan mux.Events, 2)
		for _, want := range []mux.Events{mux.Readable, mux.Writable} {
			a, b := pair(t)
			for err := error(nil); err == nil; {
				_, err = unix.Write(a, make([]byte, 4096))
			}
			if err := l.Add(a, want, readyFunc(func(ev mux.Events) {
				if _, err := unix.Write(a, []byte("x")); err != unix.EPIPE {
					t.Errorf("told of %v before the hang-up: %v", ev, err)
				}
				_ = l.Remove(a)
				got <- ev & want
			})); err != nil {
				t.Fatal(err)
			}
			_ = l.Post(func() {
				for err := error(nil); err == nil; { // select(2) tells a writer only once there is room
					_, err = unix.Read(b, make([]byte, 4096))
				}
				_ = unix.Shutdown(b, unix.SHUT_RDWR)
			})
		}
		start(t, l)
		both := <-got
		both |= <-got
		if both != mux.Readable|mux.Writable {
			t.Errorf("events %v, want both", both)
		}
	})
}

// Of a descriptor that nothing is waited for the loop knows, and tells nothing,
// not even a hang-up: neither if it was so from the first, nor of an event that
// was on its way. Then it does again.
func TestModifyNothing(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, b := pair(t)
		c, d := pair(t)
		events := 0
		again := make(chan int, 1)
		rest := func(mux.Events) {
			switch events++; events {
			case 1: // the other is ready in the same turn
				for _, fd := range []int{a, c} {
					if err := l.Modify(fd, 0); err != nil {
						t.Error(err)
					}
				}
				_ = unix.Shutdown(b, unix.SHUT_RDWR)
				_ = unix.Shutdown(d, unix.SHUT_RDWR)
				before := l.Stats().Turns
				l.After(30*time.Millisecond, func() {
					if n := l.Stats().Turns - before; n > 3 {
						t.Errorf("%d turns while nothing is waited for", n)
					}
					if l.HandlerOf(a) == nil || l.HandlerOf(c) == nil {
						t.Error("the loop has forgotten them")
					}
					if err := errors.Join(l.Modify(a, mux.Readable), l.Modify(a, mux.Readable), l.Modify(c, 0), l.Remove(c)); err != nil {
						t.Error(err)
					}
				})
			case 2:
				_ = l.Remove(a)
				again <- events
			}
		}
		write(t, b, "x")
		write(t, d, "x")
		for _, fd := range []int{a, c} {
			if err := errors.Join(l.Add(fd, 0, readyFunc(rest)), l.Modify(fd, mux.Readable)); err != nil {
				t.Fatal(err)
			}
		}
		start(t, l)
		if n := <-again; n != 2 {
			t.Errorf("%d events", n)
		}
	})
}

// Two descriptors are ready in one Wait; the first handler closes the second
// and its number is used again. The stale event must not reach the newcomer.
func TestStaleEvent(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, ap := pair(t)
		b, bp := pair(t)
		write(t, ap, "x")
		write(t, bp, "x")
		stale := make(chan bool, 1)
		first := true
		handler := func(self, other int) readyFunc {
			return func(mux.Events) {
				if !first {
					return
				}
				first = false
				_ = l.Remove(other)
				quiet, _ := pair(t)
				if err := unix.Dup3(quiet, other, unix.O_CLOEXEC); err != nil {
					t.Error(err)
				}
				hit := false
				if err := l.Add(other, mux.Readable, readyFunc(func(mux.Events) { hit = true })); err != nil {
					t.Error(err)
				}
				_ = l.Remove(self)
				_ = l.Post(func() {
					_ = l.Remove(other)
					stale <- hit
				})
			}
		}
		for _, fds := range [][2]int{{a, b}, {b, a}} {
			if err := l.Add(fds[0], mux.Readable, handler(fds[0], fds[1])); err != nil {
				t.Fatal(err)
			}
		}
		start(t, l)
		if <-stale {
			t.Error("the newcomer was told of its predecessor's readiness")
		}
		if n := stats(t, l).Stale; n != 1 {
			t.Errorf("%d stale events counted, want 1", n)
		}
	})
}

func TestAddTwice(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, _ := pair(t)
		h := readyFunc(func(mux.Events) {})
		if err := l.Add(a, mux.Readable, h); err != nil {
			t.Fatal(err)
		}
		if err := l.Add(a, mux.Readable, h); err == nil {
			t.Error("a second Add of one descriptor succeeded")
		}
		if err := l.Remove(a); err != nil {
			t.Error(err)
		}
		if err := l.Remove(a); !errors.Is(err, unix.ENOENT) {
			t.Errorf("second Remove = %v, want ENOENT", err)
		}
		if err := l.Modify(a, mux.Readable); !errors.Is(err, unix.ENOENT) {
			t.Errorf("Modify of a removed descriptor = %v, want ENOENT", err)
		}
		if err := l.Add(-1, mux.Readable, h); !errors.Is(err, unix.EBADF) {
			t.Errorf("Add(-1) = %v, want EBADF", err)
		}
	})
}

func TestDo(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		start(t, l)
		want := errors.New("no")
		if err := l.Do(t.Context(), func() error { return want }); !errors.Is(err, want) {
			t.Errorf("Do = %v, want %v", err, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ran := false
		if err := l.Do(ctx, func() error { ran = true; return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("Do = %v, want Canceled", err)
		}
		if err := l.Do(t.Context(), func() error { return nil }); err != nil || ran {
			t.Errorf("after a cancelled Do: %v, ran %v", err, ran)
		}
	})
}

// What Do says happened is what happened, however the cancel races.
func TestDoIsCertain(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		start(t, l)
		cancelled := 0
		for i := range 3000 {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for range i % 50 {
					runtime.Gosched()
				}
				cancel()
			}()
			ran := false
			err := l.Do(ctx, func() error { ran = true; return nil })
			if (err == nil) != ran {
				t.Fatalf("Do = %v, ran %v", err, ran)
			}
			if err != nil {
				cancelled++
			}
		}
		t.Logf("%d of 3000 were cancelled in time", cancelled)
	})
}

// The same, when it is Stop that races.
func TestStopIsCertain(t *testing.T) {
	eachPoller(t, func(t *testing.T, _ *mux.Loop) {
		for range 50 {
			p, err := mux.NewPoller("epoll")
			if err != nil {
				t.Fatal(err)
			}
			l, err := mux.NewLoop(p)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- l.Run() }()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					ran := false
					err := l.Do(t.Context(), func() error { ran = true; return nil })
					if (err == nil) != ran || err != nil && !errors.Is(err, mux.ErrClosed) {
						t.Errorf("Do = %v, ran %v", err, ran)
					}
				})
			}
			l.Stop()
			wg.Wait()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := l.Post(func() {}); !errors.Is(err, mux.ErrClosed) {
				t.Errorf("Post after Stop = %v, want ErrClosed", err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestTimers(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		got := make(chan int, 4)
		begin := time.Now()
		l.After(20*time.Millisecond, func() { got <- 3 })
		l.After(2*time.Millisecond, func() { got <- 1 })
		moved := l.After(time.Hour, func() { got <- 2 })
		l.Arm(moved, l.Clock()+10*time.Millisecond, alarm(func() { got <- 2 }))
		gone := l.After(5*time.Millisecond, func() { t.Error("a disarmed timer ran") })
		l.Disarm(gone)
		l.Disarm(gone)
		if gone.Set() || !moved.Set() {
			t.Errorf("Set() of a disarmed timer %v, of an armed one %v", gone.Set(), moved.Set())
		}
		start(t, l)
		for want := 1; want <= 3; want++ {
			if n := <-got; n != want {
				t.Errorf("timer %d ran in place of %d", n, want)
			}
		}
		if d := time.Since(begin); d < 20*time.Millisecond {
			t.Errorf("the last fired after %v", d)
		}
	})
}

type alarm func()

func (f alarm) Expired() { f() }

// A descriptor that is always ready, a func that posts itself and a timer that
// sets itself for now all get their turns, and none keeps another from its.
func TestFairness(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		const want = 200
		counts := [4]int{}
		ended, done := false, make(chan struct{})
		count := func(i int) {
			counts[i]++
			if !ended && slices.Min(counts[:]) >= want {
				ended = true
				close(done)
			}
		}
		for i := range 2 {
			a, b := pair(t)
			write(t, b, "never read")
			if err := l.Add(a, mux.Readable, readyFunc(func(mux.Events) { count(i) })); err != nil {
				t.Fatal(err)
			}
		}
		var post, tick func()
		post = func() { count(2); _ = l.Post(post) }
		tick = func() { count(3); l.After(0, tick) }
		_ = l.Post(post)
		l.After(0, tick)
		start(t, l)
		<-done
		counted := make(chan [4]int)
		_ = l.Post(func() { counted <- counts })
		if c := <-counted; slices.Max(c[:]) > 20*want {
			t.Errorf("turns taken %v: too uneven", c)
		}
	})
}

// Many posted at once run in order, and a descriptor gets its turn in between.
func TestPostBudget(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		const many = 10000
		a, b := pair(t)
		write(t, b, "x")
		next, seenAt := 0, -1
		if err := l.Add(a, mux.Readable, readyFunc(func(mux.Events) {
			if next > 0 && seenAt < 0 {
				seenAt = next
				_ = l.Remove(a)
			}
		})); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		for i := range many {
			if err := l.Post(func() {
				if i != next {
					t.Errorf("func %d ran as number %d", i, next)
				}
				if next++; next == many {
					close(done)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		start(t, l)
		<-done
		if seenAt < 0 || seenAt > many/2 {
			t.Errorf("the descriptor had its turn after %d of %d funcs", seenAt, many)
		}
	})
}
