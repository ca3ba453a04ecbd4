package manager

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The store as bbolt lays it out in a file: two meta pages, of which the one
// with the higher number of a transaction counts, a list of free pages, and a
// tree of pages with the root bucket in it, whose values are buckets.
const (
	pageHeader   = 16 // id, flags, count, overflow
	pageElement  = 16 // of a leaf or a branch: where key and value are
	pageMetaSize = 64
	pageMagic    = 0xED0CDAED
	pageVersion  = 2
	pageDepth    = 32 // a tree of bbolt's with as many levels has more keys than there are atoms

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01 // of an element: its value is a bucket
	bucketHeader = 16   // page of the root, sequence
	longFreelist = 0xFFFF
)

// A pages is a file that is checked before bbolt has it. bbolt believes what it
// reads: it panics, in goroutines of its own too, it writes to pages that a
// damaged list calls free, and where one meta page is damaged it takes the older,
// without what was acknowledged last. The meta pages are as large as what a
// disk writes at once, so a power cut damages neither.
type pages struct {
	file io.ReaderAt
	size int64  // of one page
	end  uint64 // the first page that is not in use
	seen []bool // each page in use is of one thing
}

type metaPage struct {
	size, root, freelist, end, transaction uint64
}

// checkPages reads all pages that are in use. It changes nothing.
func checkPages(file io.ReaderAt, length int64) error {
	first, err := readMeta(file, 0, 0)
	if err != nil {
		return err
	}
	second, err := readMeta(file, int64(first.size), 1)
	if err != nil {
		return err
	}
	newest := first
	if second.transaction > first.transaction {
		newest = second
	}
	if older := min(first.transaction, second.transaction); first.size != second.size || newest.transaction-older != 1 || first.transaction%2 != 0 {
		return fmt.Errorf("its two meta pages contradict each other")
	}
	if have := uint64(length) / newest.size; newest.end > have || newest.end < 4 {
		return fmt.Errorf("it has %d pages, and should have %d: it was cut off", have, newest.end)
	}
	p := &pages{file: file, size: int64(newest.size), end: newest.end, seen: make([]bool, newest.end)}
	p.seen[0], p.seen[1] = true, true
	if err := p.tree(newest.root, 0, nil, nil, true); err != nil {
		return err
	}
	if err := p.free(newest.freelist); err != nil {
		return err
	}
	for id, seen := range p.seen {
		if !seen {
			return fmt.Errorf("page %d is neither used nor free", id)
		}
	}
	return nil
}

func readMeta(file io.ReaderAt, at int64, id uint64) (m metaPage, err error) {
	b := make([]byte, pageHeader+pageMetaSize)
	if _, err := file.ReadAt(b, at); err != nil {
		return m, fmt.Errorf("meta page %d cannot be read: %w", id, err)
	}
	word, long := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	meta := b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:56])
	m = metaPage{size: uint64(word(meta[8:])), root: long(meta[16:]), freelist: long(meta[32:]), end: long(meta[40:]), transaction: long(meta[48:])}
	switch {
	case word(meta) != pageMagic:
		return m, fmt.Errorf("meta page %d is not of a store", id)
	case word(meta[4:]) != pageVersion:
		return m, fmt.Errorf("meta page %d is of another version of bbolt", id)
	case long(meta[56:]) != sum.Sum64(), long(b) != id, binary.NativeEndian.Uint16(b[8:]) != flagMeta:
		return m, fmt.Errorf("the checksum of meta page %d is wrong", id)
	case m.size < 512 || m.size > 1<<16 || m.size&(m.size-1) != 0:
		return m, fmt.Errorf("meta page %d says that pages have %d bytes", id, m.size)
	}
	return m, nil
}

// page is one page, with those that it overflows into.
type page struct {
	flags uint16
	count int
	data  []byte // with the header, as all that is in it is counted from there
}

func (p *pages) read(id uint64) (page, error) {
	if id < 2 || id >= p.end {
		return page{}, fmt.Errorf("page %d is referred to, of %d", id, p.end)
	}
	header := make([]byte, pageHeader)
	if _, err := p.file.ReadAt(header, int64(id)*p.size); err != nil {
		return page{}, fmt.Errorf("page %d cannot be read: %w", id, err)
	}
	more := uint64(binary.NativeEndian.Uint32(header[12:]))
	if binary.NativeEndian.Uint64(header) != id || id+more >= p.end {
		return page{}, fmt.Errorf("page %d is another", id)
	}
	for i := id; i <= id+more; i++ {
		if p.seen[i] {
			return page{}, fmt.Errorf("page %d is referred to twice", i)
		}
		p.seen[i] = true
	}
	data := make([]byte, int64(1+more)*p.size)
	if _, err := p.file.ReadAt(data, int64(id)*p.size); err != nil {
		return page{}, fmt.Errorf("page %d cannot be read: %w", id, err)
	}
	return parsePage(data), nil
}

func parsePage(data []byte) page {
	return page{binary.NativeEndian.Uint16(data[8:]), int(binary.NativeEndian.Uint16(data[10:])), data}
}

// tree checks a bucket from a page on, whose keys are from low to below high.
func (p *pages) tree(id uint64, depth int, low, high []byte, top bool) error {
	pg, err := p.read(id)
	switch {
	case err != nil:
		return err
	case depth > pageDepth:
		return fmt.Errorf("page %d is too deep in its tree", id)
	case pg.flags == flagLeaf:
		err = p.leaf(pg, low, high, top)
	case pg.flags == flagBranch && pg.count > 0:
		err = p.branch(pg, depth, low, high, top)
	default:
		err = fmt.Errorf("it is no page of a tree")
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (p *pages) branch(pg page, depth int, low, high []byte, top bool) error {
	keys, children := make([][]byte, pg.count), make([]uint64, pg.count)
	for i := range pg.count {
		e, err := pg.element(i)
		if err != nil {
			return err
		}
		children[i] = binary.NativeEndian.Uint64(e[8:])
		keys[i], err = part(e, pg.count-i, e, e[4:], nil)
		if err != nil {
			return err
		}
	}
	if err := inOrder(keys, low, high); err != nil {
		return err
	}
	for i, child := range children {
		next := high
		if i+1 < len(keys) {
			next = keys[i+1]
		}
		if err := p.tree(child, depth+1, keys[i], next, top); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a page of keys and values: at the top these are buckets.
func (p *pages) leaf(pg page, low, high []byte, top bool) error {
	keys := make([][]byte, pg.count)
	for i := range pg.count {
		e, err := pg.element(i)
		if err != nil {
			return err
		}
		both, err := part(e, pg.count-i, e[4:], e[8:], e[12:])
		if err != nil {
			return err
		}
		size := binary.NativeEndian.Uint32(e[8:])
		keys[i] = both[:size]
		if bucket := binary.NativeEndian.Uint32(e) == flagBucket; bucket != top || binary.NativeEndian.Uint32(e) > flagBucket {
			return fmt.Errorf("element %d is of a kind that does not belong there", i)
		}
		if top {
			if err := p.bucket(both[size:]); err != nil {
				return fmt.Errorf("bucket %q: %w", keys[i], err)
			}
		}
	}
	return inOrder(keys, low, high)
}

// bucket checks the value that is one. A small one has its only page in it.
func (p *pages) bucket(value []byte) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("is too short")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return p.tree(root, 0, nil, nil, false)
	}
	if len(value) < bucketHeader+pageHeader {
		return fmt.Errorf("is too short")
	}
	pg := parsePage(value[bucketHeader:])
	if pg.flags != flagLeaf {
		return fmt.Errorf("has no leaf")
	}
	return p.leaf(pg, nil, nil, false)
}

// element is the page from its element i on.
func (pg page) element(i int) ([]byte, error) {
	at := pageHeader + i*pageElement
	if at+pageElement > len(pg.data) {
		return nil, fmt.Errorf("element %d is outside", i)
	}
	return pg.data[at:], nil
}

// part is what an element refers to, counted from itself: so many bytes, and
// so many more. It is behind the elements that are left.
func part(e []byte, left int, at, size, more []byte) ([]byte, error) {
	from := uint64(binary.NativeEndian.Uint32(at))
	n := uint64(binary.NativeEndian.Uint32(size))
	if more != nil {
		n += uint64(binary.NativeEndian.Uint32(more))
	}
	if from < uint64(left)*pageElement || from+n > uint64(len(e)) {
		return nil, fmt.Errorf("a key or a value is outside")
	}
	return e[from : from+n], nil
}

func inOrder(keys [][]byte, low, high []byte) error {
	for i, k := range keys {
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 || i == 0 && bytes.Compare(k, low) < 0 || high != nil && bytes.Compare(k, high) >= 0 {
			return fmt.Errorf("key %d is not in order", i)
		}
	}
	return nil
}

// free checks the list of free pages.
func (p *pages) free(id uint64) error {
	pg, err := p.read(id)
	if err != nil {
		return err
	}
	ids, count := pg.data[pageHeader:], uint64(pg.count)
	if count == longFreelist {
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if pg.flags != flagFreelist || count > uint64(len(ids))/8 {
		return fmt.Errorf("page %d is no list of free pages", id)
	}
	for i := range count {
		n := binary.NativeEndian.Uint64(ids[i*8:])
		if n < 2 || n >= p.end || p.seen[n] {
			return fmt.Errorf("page %d is called free and is not", n)
		}
		p.seen[n] = true
	}
	return nil
}
