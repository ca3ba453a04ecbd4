package manager

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// What comes and goes in any order is as in a plain sorted list.
func TestRoster(t *testing.T) {
	const names = 5 * blockSize
	random := rand.New(rand.NewPCG(1, 2)) // the same each time
	var r roster
	var plain []string
	entries := map[string]*entry{}
	check := func() {
		t.Helper()
		var got []string
		for name, e := range r.all() {
			if e != entries[name] {
				t.Fatalf("%s has the entry of another", name)
			}
			got = append(got, name)
		}
		if !slices.Equal(got, plain) || r.len() != len(plain) {
			t.Fatalf("%d names, len is %d, want %d in order", len(got), r.len(), len(plain))
		}
		for _, b := range r.blocks {
			if len(b) == 0 || len(b) > blockSize {
				t.Fatalf("a block of %d", len(b))
			}
		}
		for range 20 {
			name, most := fmt.Sprintf("%05d", random.IntN(names)), random.IntN(2*blockSize)
			at, found := slices.BinarySearch(plain, name)
			if found {
				at++
			}
			want := plain[at:min(at+most, len(plain))]
			some := r.after(nil, name, most)
			if !slices.EqualFunc(some, want, func(e *entry, name string) bool { return e == entries[name] }) {
				t.Fatalf("%d after %s, want %d", len(some), name, len(want))
			}
		}
	}
	add := func(name string) {
		if at, found := slices.BinarySearch(plain, name); !found {
			entries[name], plain = new(entry), slices.Insert(plain, at, name)
			r.add(name, entries[name])
		}
	}
	remove := func(name string) {
		if at, found := slices.BinarySearch(plain, name); found {
			plain = slices.Delete(plain, at, at+1)
		}
		r.remove(name)
	}
	check()
	for i := range 3 * blockSize { // in order, as one Apply has them
		add(fmt.Sprintf("%05d", i))
	}
	check()
	for round := range 40 {
		for range blockSize / 2 {
			if random.IntN(20) < round {
				remove(fmt.Sprintf("%05d", random.IntN(names)))
			} else {
				add(fmt.Sprintf("%05d", random.IntN(names)))
			}
		}
		check()
	}
	for len(plain) > 0 {
		remove(plain[random.IntN(len(plain))])
	}
	check()
	if len(r.blocks) != 0 {
		t.Errorf("%d blocks of nothing", len(r.blocks))
	}
}
