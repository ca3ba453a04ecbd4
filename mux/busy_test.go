package mux_test

import (
	"runtime"
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
