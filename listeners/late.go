package listeners

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A late has the datagrams of a socket that fault.delay holds, up to
// write_buffer_bytes each way. Loop only.
type late struct {
	s     *packetSocket
	lines [directions]lateLine
	timer mux.Timer
}

// A lateLine has those of one direction, in order.
type lateLine struct {
	held  []lateDatagram
	bytes int
}

// A lateDatagram is a copy of one that came, or is to be sent.
type lateDatagram struct {
	at time.Duration // when it goes on, on the loop's clock
	outgoing
}

// hitsSource reports whether the datagrams of a source are hit.
func (f *Faults) hitsSource(name *unix.RawSockaddrAny, size uint32) bool {
	h := fnv.New64a()
	_, _ = h.Write((*[unix.SizeofSockaddrAny]byte)(unsafe.Pointer(name))[:min(size, unix.SizeofSockaddrAny)])
	return f.hits(h.Sum64())
}

// hinder reports whether a fault drops or holds the datagram in hand.
func (b *batch) hinder() bool {
	p := &b.peer
	return p.s.hinders(reading, outgoing{to: &b.names[p.i], toLen: b.in[p.i].hdr.Namelen, data: p.data, control: p.asked})
}

// hinder reports whether a fault drops or holds one that is to be sent.
func (s *packetSocket) hinder(o outgoing) bool { return s.hinders(writing, o) }

func (s *packetSocket) hinders(d direction, o outgoing) bool {
	f := &s.l.faults
	if !f.strike(d) || !f.hitsSource(o.to, o.toLen) {
		return false
	}
	if f.Loss > 0 && rand.N(int64(100)) < f.Loss {
		s.l.stats.reject(RejectedFault)
		return true
	}
	if f.Delay == 0 && f.Jitter == 0 {
		return false
	}
	if s.late == nil {
		s.late = &late{s: s}
	}
	if !s.late.put(d, o, s.l.set.loop.Clock()+f.held(d)) {
		s.l.stats.reject(RejectedFault)
	}
	return true
}

// size is what a copy of it takes, with what is around it.
func (o *outgoing) size() int {
	return len(o.header) + len(o.data) + int(unsafe.Sizeof(lateDatagram{})) + unix.SizeofSockaddrAny + controlSize
}

// put holds a copy; it reports whether there is room.
func (t *late) put(d direction, o outgoing, at time.Duration) bool {
	q := &t.lines[d]
	size := o.size()
	if q.bytes+size > int(t.s.l.tunables.WriteBuffer) {
		return false
	}
	if n := len(q.held); n > 0 {
		at = max(at, q.held[n-1].at)
	}
	to := *o.to
	q.bytes += size
	q.held = append(q.held, lateDatagram{at, outgoing{&to, o.toLen, slices.Clone(o.control), slices.Clone(o.header), slices.Clone(o.data)}})
	t.arm()
	return true
}

// arm waits for the first.
func (t *late) arm() {
	var at time.Duration
	for d := range directions {
		if q := &t.lines[d]; len(q.held) > 0 {
			at = earlier(at, max(q.held[0].at, 1))
		}
	}
	if at > 0 && (!t.timer.Set() || at < t.timer.At()) {
		t.s.l.set.loop.Arm(&t.timer, at, t)
	}
}

// Expired lets go on what is due, a batch each way.
func (t *late) Expired() {
	b := t.s.l.set.batch
	b.queue = b.queue[:0]
	for _, o := range t.lines[writing].take(t.s.l.set.loop.Clock()) {
		b.queue = append(b.queue, o.outgoing)
	}
	b.post(t.s, b.queue)
	b.queue = b.queue[:0]
	for i, o := range t.lines[reading].take(t.s.l.set.loop.Clock()) {
		b.names[i] = *o.to
		b.in[i].hdr.Namelen, b.in[i].len = o.toLen, uint32(len(o.data))
		asked := b.inControl[i][:copy(b.inControl[i][:], o.control)]
		data := b.data[i*datagramSize:][:copy(b.data[i*datagramSize:], o.data)]
		b.peer = packetPeer{s: t.s, b: b, i: i, data: data, asked: asked}
		b.offer()
	}
	b.answer(t.s)
	t.arm()
}

// take takes out what is due.
func (q *lateLine) take(now time.Duration) []lateDatagram {
	n := 0
	for n < min(len(q.held), batchSize) && q.held[n].at <= now {
		q.bytes -= q.held[n].size()
		n++
	}
	due := q.held[:n:n]
	if q.held = q.held[n:]; len(q.held) == 0 {
		q.held = nil
	}
	return due
}

// hurry goes by faults that were changed: nothing is held for longer than it
// would be now.
func (t *late) hurry(f Faults) {
	now := t.s.l.set.loop.Clock()
	for d := range directions {
		most := now
		if f.strike(d) {
			most += f.Delay + f.Jitter
		}
		for i := range t.lines[d].held {
			o := &t.lines[d].held[i]
			o.at = min(o.at, most)
		}
	}
	t.arm()
}

// drop forgets what it holds.
func (t *late) drop() {
	t.s.l.set.loop.Disarm(&t.timer)
	t.lines = [directions]lateLine{}
}
