package mux

import "math/bits"

// HistogramBuckets is how many counts a Histogram has.
const HistogramBuckets = 26

// A Histogram counts values in buckets whose upper bounds are 1, 2, 4 and so on
// up to 2^24; the last bucket has no bound. In microseconds that is 17 seconds,
// in milliseconds 4.7 hours. Observing costs no division, no search and no
// allocation. Who owns it knows the unit.
//
// The fields are plain: one goroutine, the loop's, both writes and copies it.
// Atomics would cost every turn of the loop more than a reader costs it once.
type Histogram struct {
	Counts [HistogramBuckets]uint64
	Sum    uint64
	Max    uint64
}

// Observe counts v.
func (h *Histogram) Observe(v uint64) {
	place := 0
	if v > 1 {
		place = min(bits.Len64(v-1), HistogramBuckets-1) // a bound belongs to its bucket
	}
	h.Counts[place]++
	h.Sum += v
	h.Max = max(h.Max, v)
}

// Add adds what another has counted, in the same unit.
func (h *Histogram) Add(o *Histogram) {
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
	h.Sum += o.Sum
	h.Max = max(h.Max, o.Max)
}

// Count is how many values there were.
func (h *Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Bound is the upper bound of a bucket, which belongs to it. The last bucket
// has none.
func (h *Histogram) Bound(bucket int) uint64 { return 1 << bucket }

// Quantile returns a bound that the share q of all values, from 0 to 1, does not
// exceed: at most twice what the exact answer is. It is 0 when there are none.
func (h *Histogram) Quantile(q float64) uint64 {
	count := h.Count()
	need, seen := uint64(q*float64(count)), uint64(0)
	for i, c := range h.Counts[:HistogramBuckets-1] {
		if seen += c; c > 0 && seen >= need {
			return min(h.Bound(i), h.Max)
		}
	}
	return h.Max
}
