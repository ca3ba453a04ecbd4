package manager

import (
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

const (
	spreadMost  = 4   // goroutines: more than that wait for each other in the kernel
	spreadLeast = 256 // things for each: for fewer it does not pay to begin one
	spreadBlock = 32  // things after which others of the process may go on
)

// Spread calls work on as many goroutines as there are processors for it, the
// caller's among them, and gives each some of the numbers from 0 to n-1 until all
// are done. A panic of one is the caller's.
func Spread(n int, work func(some iter.Seq[int])) {
	var next atomic.Int64
	some := func(yield func(int) bool) {
		for {
			end := int(next.Add(spreadBlock))
			for i := end - spreadBlock; i < min(end, n); i++ {
				if !yield(i) {
					return
				}
			}
			if end >= n {
				return
			}
			runtime.Gosched() // the loop must not wait until Go's scheduler thinks of it: 10 ms
		}
	}
	var (
		group    sync.WaitGroup
		panicked atomic.Pointer[string]
	)
	for range goroutines(n) - 1 {
		group.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					text := fmt.Sprintf("%v\n%s", r, debug.Stack())
					panicked.Store(&text)
				}
			}()
			work(some)
		})
	}
	defer func() { // the others are done, whatever becomes of this one
		group.Wait()
		if r := panicked.Load(); r != nil {
			panic(*r)
		}
	}()
	work(some)
}

// goroutines is how many n things are spread over.
func goroutines(n int) int {
	return max(1, min(spreadMost, runtime.GOMAXPROCS(0), n/spreadLeast))
}
