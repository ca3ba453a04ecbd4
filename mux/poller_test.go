package mux_test

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

func TestSelectRefusesLargeFD(t *testing.T) {
	noLeaks(t)
	a, _ := pair(t)
	high, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, unix.FD_SETSIZE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(high)
	l := newLoop(t, "select")
	h := readyFunc(func(mux.Events) {})
	if err := l.Add(high, mux.Readable, h); !errors.Is(err, mux.ErrFDRange) {
		t.Errorf("Add(%d) = %v, want ErrFDRange", high, err)
	}
	if err := l.Add(a, mux.Readable, h); err != nil {
		t.Errorf("Add(%d) after a refusal: %v", a, err)
	}
}

func TestUnknownPoller(t *testing.T) {
	if _, err := mux.NewPoller("kqueue"); err == nil {
		t.Error("NewPoller(kqueue) succeeded")
	}
}

// 5,000 descriptors, half of them ready: each of those is told, no other is.
func TestManyDescriptors(t *testing.T) {
	for _, name := range []string{"epoll", "poll"} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			l := newLoop(t, name)
			const pairs = 2500
			told := map[int]int{}
			done := make(chan struct{})
			for i := range pairs {
				a, b := pair(t)
				add := func(fd int) {
					if err := l.Add(fd, mux.Readable, readyFunc(func(mux.Events) {
						told[fd]++
						_ = l.Remove(fd)
						if len(told) == pairs {
							close(done)
						}
					})); err != nil {
						t.Fatal(err)
					}
				}
				add(a)
				add(b)
				write(t, []int{a, b}[i%2], "x") // sometimes this end, sometimes that
			}
			start(t, l)
			<-done
			for fd, n := range told {
				if n != 1 {
					t.Errorf("descriptor %d was told %d times", fd, n)
				}
			}
		})
	}
}

// A Wait with a timeout of zero does not wait, one with a timeout does not
// return early.
func TestWaitTimeout(t *testing.T) {
	for _, name := range mux.Pollers() {
		p, err := mux.NewPoller(name)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if ready, err := p.Wait(nil, 0); err != nil || len(ready) != 0 {
			t.Errorf("%s: Wait(0) = %v, %v", name, ready, err)
		}
		begin := time.Now()
		const wait = 1500 * time.Microsecond
		for time.Since(begin) < wait { // a signal may interrupt it
			if ready, err := p.Wait(nil, wait-time.Since(begin)); err != nil || len(ready) != 0 {
				t.Errorf("%s: Wait = %v, %v", name, ready, err)
			}
		}
	}
}

// What it costs to have the loop do something, and wait for that.
func BenchmarkDo(b *testing.B) {
	p, err := mux.NewPoller("epoll")
	if err != nil {
		b.Fatal(err)
	}
	l, err := mux.NewLoop(p)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Do(b.Context(), func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	l.Stop()
	if err := errors.Join(<-ended, l.Close()); err != nil {
		b.Error(err)
	}
}

// Who wants hang-ups only is not told of what can be read, and is told when both
// sides have finished; select(2) tells nothing.
func TestPollerHangUp(t *testing.T) {
	for _, name := range mux.Pollers() {
		t.Run(name, func(t *testing.T) {
			p, err := mux.NewPoller(name)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fds[0])
			if err := p.Add(mux.Key{FD: fds[0]}, mux.HangUp); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(fds[1], []byte("x")); err != nil {
				t.Fatal(err)
			}
			if got, err := p.Wait(nil, 0); len(got) > 0 || err != nil {
				t.Errorf("told of %v, %v", got, err)
			}
			if err := unix.Close(fds[1]); err != nil {
				t.Fatal(err)
			}
			got, err := p.Wait(nil, 0)
			if err != nil || (len(got) == 1) != (name != "select") {
				t.Errorf("told of %v, %v", got, err)
			}
		})
	}
}

// However the waits before were, short ones or long ones: what comes while a Wait
// is under way ends it, a timeout is kept, and nothing is allocated.
func TestWaitShortAndLong(t *testing.T) {
	for _, name := range mux.Pollers() {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			p, err := mux.NewPoller(name)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			a, b := pair(t)
			key := mux.Key{FD: a, Gen: 7}
			if err := p.Add(key, mux.Readable); err != nil {
				t.Fatal(err)
			}
			ready, msg := make([]mux.Ready, 0, 8), make([]byte, 8)
			for _, run := range []struct {
				waits int
				pause time.Duration
			}{{40, time.Millisecond}, {2000, 0}, {40, time.Millisecond}, {2000, 0}} {
				for range run.waits {
					sent := make(chan error, 1)
					time.AfterFunc(run.pause, func() {
						_, err := unix.Write(b, []byte("x"))
						sent <- err
					})
					for ready = ready[:0]; len(ready) == 0; {
						if ready, err = p.Wait(ready, -1); err != nil {
							t.Fatal(err)
						}
					}
					if err := <-sent; err != nil || len(ready) != 1 || ready[0].Key != key || ready[0].Events&mux.Readable == 0 {
						t.Fatalf("told of %v, %v", ready, err)
					}
					if n, err := unix.Read(a, msg); n != 1 || err != nil {
						t.Fatal(n, err)
					}
				}
				began := time.Now()
				allocs := testing.AllocsPerRun(20, func() {
					ready, err = p.Wait(ready[:0], time.Millisecond)
				})
				if err != nil || len(ready) != 0 || allocs > 0 {
					t.Errorf("%v, %v, %.0f allocations", ready, err, allocs)
				}
				if took := time.Since(began); took < 15*time.Millisecond { // a signal may interrupt some
					t.Errorf("21 waits of 1 ms took %v", took)
				}
			}
		})
	}
}
