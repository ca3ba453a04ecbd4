package manager

import (
	"iter"
	"slices"
	"strings"
)

// blockSize is how many entries there are in one piece: one that comes or goes
// moves half of them, 6 KB.
const blockSize = 512

// A roster is entries in the order of their names, in blocks: how many there are
// does not tell on what comes and goes.
type roster struct {
	blocks [][]named // none is empty
	n      int
}

type named struct {
	name  string
	entry *entry
}

func (r *roster) len() int { return r.n }

// add puts in what is not there.
func (r *roster) add(name string, e *entry) {
	r.n++
	x, last := named{name, e}, len(r.blocks)-1
	if last < 0 || r.blocks[last][len(r.blocks[last])-1].name < name { // so do many at once come, in order
		if last < 0 || len(r.blocks[last]) == blockSize {
			r.blocks = append(r.blocks, nil)
			last++
		}
		r.blocks[last] = append(r.blocks[last], x)
		return
	}
	b, at, _ := r.find(name)
	if len(r.blocks[b]) == blockSize {
		whole := r.blocks[b]
		r.blocks = slices.Insert(r.blocks, b+1, append(make([]named, 0, blockSize), whole[blockSize/2:]...))
		clear(whole[blockSize/2:])
		r.blocks[b] = whole[:blockSize/2]
		if at > blockSize/2 {
			b, at = b+1, at-blockSize/2
		}
	}
	r.blocks[b] = slices.Insert(r.blocks[b], at, x)
}

// remove takes out what may be there.
func (r *roster) remove(name string) {
	b, at, found := r.find(name)
	if !found {
		return
	}
	r.n--
	if r.blocks[b] = slices.Delete(r.blocks[b], at, at+1); len(r.blocks[b]) == 0 {
		r.blocks = slices.Delete(r.blocks, b, b+1)
	}
}

// find returns the block of a name, and its place there: both are where it would
// be if it is not found.
func (r *roster) find(name string) (block, at int, found bool) {
	block, first := slices.BinarySearchFunc(r.blocks, name, func(b []named, name string) int { return strings.Compare(b[0].name, name) })
	switch {
	case first:
		return block, 0, true
	case block == 0:
		return 0, 0, false
	}
	at, found = slices.BinarySearchFunc(r.blocks[block-1], name, func(x named, name string) int { return strings.Compare(x.name, name) })
	return block - 1, at, found
}

// after adds up to most of those whose names come after the one given to some.
func (r *roster) after(some []*entry, name string, most int) []*entry {
	b, at, found := r.find(name)
	if found {
		at++
	}
	for ; b < len(r.blocks) && most > 0; b, at = b+1, 0 {
		here := r.blocks[b][at:min(at+most, len(r.blocks[b]))]
		for _, x := range here {
			some = append(some, x.entry)
		}
		most -= len(here)
	}
	return some
}

// all goes through all of them.
func (r *roster) all() iter.Seq2[string, *entry] {
	return func(yield func(string, *entry) bool) {
		for _, b := range r.blocks {
			for _, x := range b {
				if !yield(x.name, x.entry) {
					return
				}
			}
		}
	}
}
