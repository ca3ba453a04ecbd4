package listeners

import "time"

// A bucket keeps a rate: what is taken out flows back in time. It counts in
// time, so that it needs no timer of its own: a cost is how long it takes to
// flow back, and a span is what the full bucket has (a virtual schedule, ITU-T
// I.371). The zero bucket is full.
type bucket struct {
	full time.Duration // on the loop's clock: when it is
}

// has reports whether the cost can be taken out.
func (b *bucket) has(now, cost, span time.Duration) bool { return max(b.full-now, 0)+cost <= span }

// take takes the cost out, also what is not in.
func (b *bucket) take(now, cost time.Duration) { b.full = max(b.full, now) + cost }

// when is the time at which it has the cost.
func (b *bucket) when(cost, span time.Duration) time.Duration { return b.full + cost - span }
