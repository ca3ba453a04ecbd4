package service

import (
	"container/heap"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// A top keeps the first few of any number of things, in an order: a page takes
// the memory of a page, however much there is to choose from.
type top[T any] struct {
	order   order
	most    int
	after   *sortKey // nil: from the beginning
	total   int      // how many there were
	rows    []topRow[T]
	scratch []sortValue
}

type topRow[T any] struct {
	key  sortKey
	item T
}

// offer takes x if it is among the first.
func (t *top[T]) offer(name string, m protoreflect.Message, x T) {
	t.total++
	key := t.order.keyOf(name, m, t.scratch)
	t.scratch = key.Values
	if t.after != nil && t.order.compare(key, *t.after) <= 0 {
		return
	}
	full := len(t.rows) == t.most
	if full && t.order.compare(key, t.rows[0].key) >= 0 {
		return
	}
	key.Values = slices.Clone(key.Values)
	if !full {
		heap.Push((*topHeap[T])(t), topRow[T]{key, x})
		return
	}
	t.rows[0] = topRow[T]{key, x}
	heap.Fix((*topHeap[T])(t), 0)
}

// page returns the first size rows, in order, and where the next page begins,
// if there is one: most is more than size then.
func (t *top[T]) page(size int) (items []T, next string) {
	slices.SortFunc(t.rows, func(a, b topRow[T]) int { return t.order.compare(a.key, b.key) })
	if len(t.rows) > size {
		t.rows = t.rows[:size]
		next = t.rows[size-1].key.at()
	}
	for _, r := range t.rows {
		items = append(items, r.item)
	}
	return items, next
}

// topHeap has the last of the rows at its root.
type topHeap[T any] top[T]

func (h *topHeap[T]) Len() int           { return len(h.rows) }
func (h *topHeap[T]) Less(i, j int) bool { return h.order.compare(h.rows[i].key, h.rows[j].key) > 0 }
func (h *topHeap[T]) Swap(i, j int)      { h.rows[i], h.rows[j] = h.rows[j], h.rows[i] }

// Push is heap.Interface.
func (h *topHeap[T]) Push(x any) { h.rows = append(h.rows, x.(topRow[T])) }

// Pop is heap.Interface. Nothing is taken out: the last is replaced.
func (h *topHeap[T]) Pop() any { panic("not called") }
