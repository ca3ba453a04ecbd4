package listeners

import "testing"

// A socket whose datagrams come one at a time is seldom asked for many, and one
// that has many is asked for them from then on.
func TestSingles(t *testing.T) {
	var s singles
	waits := uint64(0)
	asked := func(n, waiting int) (batches int) {
		for range n {
			waits++
			alone := s.due(waits)
			if !alone {
				batches++
				s.took(waiting, false)
			} else {
				s.took(1, true)
			}
		}
		return batches
	}
	if n := asked(1700, 1); n < 100 || n > 105 {
		t.Errorf("looked %d times whether more than one waits", n)
	}
	if n := asked(mostSingles+101, 2); n <= 100 {
		t.Errorf("%d batches, where many wait", n)
	}
	if n := asked(4, 1); n != 2 {
		t.Errorf("%d batches, where one came alone after many", n)
	}
	if waits++; !s.due(waits) {
		t.Error("many asked for, where each came alone")
	}
	if s.due(waits) {
		t.Error("one taken alone, where it was there at once")
	}
	s.took(1, false)
	if s.took(2, true); s.last != 0 {
		t.Error("taken alone, where several came as one")
	}
}
