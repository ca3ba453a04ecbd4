package sockets

import "slices"

// taken is something that a call took from the kernel, and where it stood.
type taken[T any] struct {
	place uint64 // grows with everything that is taken from one socket; for bytes, how many came before
	what  T
}

// returned is what was taken and not delivered, in the order of places.
type returned[T any] []taken[T]

// put gives something back.
func (r *returned[T]) put(one taken[T]) {
	i, _ := slices.BinarySearchFunc(*r, one.place, func(t taken[T], place uint64) int {
		if t.place < place {
			return -1
		}
		return 1
	})
	*r = slices.Insert(*r, i, one)
}

// drop takes the first out for good.
func (r *returned[T]) drop() {
	if *r = slices.Delete(*r, 0, 1); len(*r) == 0 {
		*r = nil
	}
}
