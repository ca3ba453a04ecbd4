package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// speed is so many a second: 0, 0.3, 12, 3400.
func speed(perSecond float64) string {
	if perSecond == 0 || perSecond >= 9.95 {
		return strconv.FormatFloat(perSecond, 'f', 0, 64)
	}
	return strconv.FormatFloat(perSecond, 'f', 1, 64)
}

// byteSpeed is size of so many bytes a second.
func byteSpeed(perSecond float64) string { return size(uint64(math.Round(max(perSecond, 0)))) }

// percent is a share of one.
func percent(ratio float64) string { return fmt.Sprintf("%.1f%%", ratio*100) }

// quantile returns a value that the share q of all values in h does not exceed;
// it is a bound of a bucket, or the largest value. ok is false of none.
func quantile(h *pb.Histogram, q float64) (value float64, ok bool) {
	counts, bounds := h.GetCounts(), h.GetBounds()
	if h.GetCount() == 0 || len(counts) != len(bounds)+1 {
		return 0, false
	}
	need, seen := q*float64(h.GetCount()), uint64(0)
	for i, bound := range bounds {
		if seen += counts[i]; counts[i] > 0 && float64(seen) >= need {
			return min(bound, h.GetMax()), true
		}
	}
	return h.GetMax(), true
}

// quantileText is for histograms of seconds.
func quantileText(h *pb.Histogram, q float64) string {
	value, ok := quantile(h, q)
	if !ok {
		return none
	}
	return span(value)
}

// span is a time with two or three digits: 64us, 1.02ms, 4.2s, 3m.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dus", (d+time.Microsecond/2)/time.Microsecond)
	case d < time.Second:
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'g', 3, 64) + "ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'g', 3, 64) + "s"
	}
	return d.Round(time.Second).String()
}

// since is what came to h after before was taken. The maximum is of both: it is
// not known of the time between. After a reset it is h.
func since(h, before *pb.Histogram) *pb.Histogram {
	if before.GetCount() > h.GetCount() || len(before.GetCounts()) != len(h.GetCounts()) {
		return h
	}
	counts := slices.Clone(h.GetCounts())
	for i, n := range before.GetCounts() {
		if n > counts[i] {
			return h
		}
		counts[i] -= n
	}
	return &pb.Histogram{
		Unit: h.GetUnit(), Bounds: h.GetBounds(), Counts: counts, Sum: h.GetSum() - before.GetSum(),
		Count: h.GetCount() - before.GetCount(), Max: h.GetMax(),
	}
}
