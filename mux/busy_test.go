package mux_test

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// processorTime is what this process has used.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// With one processor, a loop that always has work lets others have their turn:
// they get on though it never waits. By itself Go would interrupt it each 10 ms.
func TestBusyLoopLetsOthersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, b := pair(t)
		write(t, b, "never read")
		turns := make(chan struct{}, 1)
		if err := l.Add(a, mux.Readable, readyFunc(func(mux.Events) {
			select {
			case turns <- struct{}{}:
			default:
			}
		})); err != nil {
			t.Fatal(err)
		}
		start(t, l)
		const steps = 100
		<-turns // it is at work
		before := processorTime(t)
		for range steps {
			<-turns // the loop has had a turn since
			runtime.Gosched()
		}
		used := processorTime(t) - before
		t.Logf("%d steps, %v of the loop's work between two", steps, used/steps)
		if used > steps*5*time.Millisecond {
			t.Errorf("%d steps of somebody else's took %v of the processor, with a loop that always has work", steps, used)
		}
	})
}

// So do those that wait for a socket, at which Go's scheduler looks only when nothing
// else can run, or each 10 ms.
func TestBusyLoopLetsSocketsBeRead(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		a, b := pair(t)
		write(t, b, "never read")
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[0])
		reads := os.NewFile(uintptr(fds[1]), "socket")
		defer reads.Close()
		var answered atomic.Bool
		answered.Store(true)
		if err := l.Add(a, mux.Readable, readyFunc(func(mux.Events) {
			if answered.CompareAndSwap(true, false) {
				_, _ = unix.Write(fds[0], []byte("x"))
			}
		})); err != nil {
			t.Fatal(err)
		}
		start(t, l)
		const steps = 100
		var buf [1]byte
		var before time.Duration
		for i := range steps + 1 {
			if _, err := reads.Read(buf[:]); err != nil {
				t.Fatal(err)
			}
			if i == 0 { // it is at work
				before = processorTime(t)
			}
			answered.Store(true)
		}
		used := processorTime(t) - before
		t.Logf("%d reads, %v of the loop's work between two", steps, used/steps)
		if used > steps*5*time.Millisecond {
			t.Errorf("%d reads of a socket took %v of the processor, with a loop that always has work", steps, used)
		}
	})
}
