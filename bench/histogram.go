package main

import "math/bits"

// A histogram counts durations in nanoseconds in fixed buckets: 32 for every
// doubling, so that a bucket is at most 3 % wide.
type histogram struct {
	counts [59 * subBuckets]uint32
	n      uint64
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

func bucket(ns int64) int {
	if ns < subBuckets {
		return int(max(ns, 0))
	}
	shift := bits.Len64(uint64(ns)) - subBits - 1
	return (shift+1)*subBuckets + int(ns>>shift) - subBuckets
}

// lowest is the least duration that falls into bucket i.
func lowest(i int) int64 {
	if i < subBuckets {
		return int64(i)
	}
	shift := i/subBuckets - 1
	return int64(subBuckets+i%subBuckets) << shift
}

func (h *histogram) add(ns int64) { h.addMany(ns, 1) }

func (h *histogram) addMany(ns int64, n uint32) {
	h.counts[bucket(ns)] += n
	h.n += uint64(n)
}

// quantile returns a duration that a fraction q of all does not exceed, to
// the middle of a bucket.
func (h *histogram) quantile(q float64) int64 {
	want := uint64(q * float64(h.n))
	var seen uint64
	for i, c := range h.counts {
		seen += uint64(c)
		if c > 0 && seen >= want {
			return (lowest(i) + lowest(i+1)) / 2
		}
	}
	return 0
}

func (h *histogram) reset() { *h = histogram{} }
