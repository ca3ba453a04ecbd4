package service

import (
	"sync"
	"time"
)

// A quota keeps what is noted of one caller few: so many at once, then so many in
// a second. More are counted only: nobody fills the log, or the events, with them.
type quota struct {
	burst, perSecond float64

	mu sync.Mutex
	by map[string]*taken
}

// taken is of one caller.
type taken struct {
	left    float64
	at      time.Time
	dropped uint64
}

const quotaCallers = 1024 // more are forgotten

func newQuota(burst, perSecond float64) *quota {
	return &quota{burst: burst, perSecond: perSecond, by: map[string]*taken{}}
}

// take reports whether one more may be noted, and how many were not since the
// last.
func (q *quota) take(who string) (ok bool, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	t := q.by[who]
	if t == nil {
		if len(q.by) >= quotaCallers {
			clear(q.by)
		}
		t = &taken{left: q.burst, at: now}
		q.by[who] = t
	}
	t.left, t.at = min(q.burst, t.left+q.perSecond*now.Sub(t.at).Seconds()), now
	if t.left < 1 {
		t.dropped++
		return false, 0
	}
	t.left--
	dropped, t.dropped = t.dropped, 0
	return true, dropped
}

// firsts knows what has been noted once.
type firsts struct {
	mu   sync.Mutex
	seen map[string]bool
}

const maxFirsts = 4096 // more, and all are noted once again

// is reports whether a thing is the first of its kind.
func (f *firsts) is(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[what] {
		return false
	}
	if f.seen == nil || len(f.seen) >= maxFirsts {
		f.seen = map[string]bool{}
	}
	f.seen[what] = true
	return true
}
