package manager

import (
	"runtime/debug"
	"sync"
	"time"
)

// While thousands of listeners are made, nearly all that is allocated stays:
// collecting garbage meanwhile finds none, and looks at more each time. So it is
// done less often until they are there. A limit of memory (GOMEMLIMIT) holds as ever.
const (
	easeFrom    = 1000 // listeners in one change
	easePercent = 1600
	easeAfter   = time.Second // until the answer is sent too, and is garbage
)

var easing struct {
	mu     sync.Mutex
	users  int
	before int // what the percent was
}

// EaseCollector makes garbage collections rarer, if a change is that large, until
// a second after the func that it returns is called.
func EaseCollector(count int) (done func()) {
	if count < easeFrom {
		return func() {}
	}
	easing.mu.Lock()
	defer easing.mu.Unlock()
	if easing.users++; easing.users == 1 {
		easing.before = debug.SetGCPercent(easePercent)
		if easing.before < 0 || easing.before > easePercent {
			debug.SetGCPercent(easing.before) // somebody wants even less
		}
	}
	return func() { time.AfterFunc(easeAfter, collectAsBefore) }
}

func collectAsBefore() {
	easing.mu.Lock()
	defer easing.mu.Unlock()
	if easing.users--; easing.users == 0 {
		debug.SetGCPercent(easing.before)
	}
}
