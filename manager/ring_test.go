package manager

import (
	"errors"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
)

// A ring keeps so many things, or fewer that take so many bytes, and tells who
// is behind what is not kept.
func TestRing(t *testing.T) {
	for _, tt := range []struct{ weight, kept int }{{1, ringSize}, {ringBytes / 10, 10}, {2 * ringBytes, 1}} {
		r := newRing(7, func(uint64) int { return tt.weight })
		const many = ringSize + 100
		for range many {
			r.publish(func(seq uint64) uint64 { return seq })
		}
		kept := r.kept()
		if len(kept) != tt.kept || kept[0] != 7+many || r.seq() != 7+many {
			t.Errorf("weight %d: kept %d of %d, the newest %d", tt.weight, len(kept), tt.kept, kept[0])
		}
		oldest := kept[len(kept)-1]
		if x, _, err := r.after(oldest - 1); err != nil || x != oldest {
			t.Errorf("after %d: %d, %v", oldest-1, x, err)
		}
		for _, seq := range []uint64{oldest - 2, 7 + many + 1} {
			if _, _, err := r.after(seq); !errors.Is(err, listeners.RevisionCompacted) {
				t.Errorf("after %d of %d to %d: %v", seq, oldest, kept[0], err)
			}
		}
		if _, more, err := r.after(7 + many); more == nil || err != nil {
			t.Errorf("after the last: %v", err)
		}
	}
}
