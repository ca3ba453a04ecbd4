package listeners

import (
	"time"

	"golang.org/x/sys/unix"
)

// lineMarks bounds the times that a line keeps: small reads share one.
const lineMarks = 1024

// A line is what a link holds in one direction, in order.
type line struct {
	data  []byte
	marks []mark
	errno unix.Errno    // of reading; 0: none
	piece int           // most bytes at once; 0: any
	pause time.Duration // between two pieces
	rest  time.Duration // until when there is one; on the loop's clock, as all here
	cut   bool          // nothing passes
	ended bool          // nothing follows the data
	end   time.Duration // and when that may be seen
	over  bool          // it was
	total int64         // bytes that have passed
	most  int64         // may pass; 0: any
}

// A mark is bytes that may pass from a time on.
type mark struct {
	at time.Duration
	n  int
}

// put holds a copy of p. It never comes before what is held already.
func (q *line) put(p []byte, at time.Duration) {
	if q.data = append(q.data, p...); len(q.marks) > 0 {
		last := &q.marks[len(q.marks)-1]
		at = max(at, last.at)
		if at == last.at || len(q.marks) == lineMarks {
			last.at, last.n = at, last.n+len(p)
			return
		}
	}
	q.marks = append(q.marks, mark{at, len(p)})
}

// due is how many bytes may pass now, at once.
func (q *line) due(now time.Duration) (n int) {
	if q.cut || now < q.rest {
		return 0
	}
	for _, m := range q.marks {
		if m.at > now || q.piece > 0 && n >= q.piece {
			break
		}
		n += m.n
	}
	if q.piece > 0 {
		n = min(n, q.piece)
	}
	if q.most > 0 {
		n = int(min(int64(n), max(q.most-q.total, 0)))
	}
	return n
}

// next is when more may pass that may not now; 0: nothing may.
func (q *line) next(now time.Duration) time.Duration {
	var at time.Duration
	switch {
	case q.cut:
		return 0
	case len(q.marks) > 0:
		at = max(q.marks[0].at, q.rest)
	case q.ended && !q.over:
		at = max(q.end, 1)
	}
	if at <= now {
		return 0
	}
	return at
}

// moved takes out what has passed.
func (q *line) moved(n int, now time.Duration) {
	q.total += int64(n)
	q.rest = now + q.pause
	if q.data = q.data[n:]; len(q.data) == 0 {
		q.data, q.marks = nil, nil // an idle connection holds no buffer
		return
	}
	for n > 0 {
		m := min(n, q.marks[0].n)
		n -= m
		if q.marks[0].n -= m; q.marks[0].n == 0 {
			q.marks = q.marks[1:]
		}
	}
}

// finish notes that nothing follows.
func (q *line) finish(at time.Duration) {
	if n := len(q.marks); n > 0 {
		at = max(at, q.marks[n-1].at)
	}
	q.ended, q.end = true, at
}

func (q *line) isAtEnd(now time.Duration) bool {
	return q.ended && len(q.data) == 0 && !q.cut && now >= q.end
}

// hurry lets nothing be held beyond a time.
func (q *line) hurry(most, end time.Duration) {
	for i := range q.marks {
		q.marks[i].at = min(q.marks[i].at, most)
	}
	q.end = min(q.end, end)
}

// clear drops what is held.
func (q *line) clear() { q.data, q.marks = nil, nil }
