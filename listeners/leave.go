package listeners

import (
	"encoding/json"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Transfer is what moves to another process. It is made on the loop, and the
// loop must not turn until it is known what becomes of it: either Done, or it is
// dropped, and all is as before. Nothing is taken off the loop for it: as long as
// the loop stands still, nobody touches a descriptor.
//
// It comes in parts, so that the other process takes up one while the next is
// made: see Next.
type Transfer struct {
	Saved
	Files []int // that are copied to the other process

	set       *Set
	listeners []*Listener
	moving    map[*Listener]bool
	next      int // descriptor to go on from
	before    int // files of the parts before
	conns     []*conn
	offered   map[uint64]bool      // cookies of those that clients use, or may
	handlers  map[*httpHandler]int // 1 + places in all of Saved.Handlers
	executors map[*executor]int    // places in all of Saved.Executors
	errors    map[*executor]bool   // whose stderr is saved
	passed    map[*executor]bool   // programs that have the sockets, and move
	stays     bool
}

// The most of a part: as many files as go over at once, nearly, and so many bytes
// that connections hold.
const (
	partFiles = 200
	partBytes = 1 << 20
)

// Transfer saves the listeners. Their connections are in the parts that follow.
// With stays this process outlives what it leaves: programs that end with it may
// move too.
func (s *Set) Transfer(ls []*Listener, kept *Kept, stays bool) (*Transfer, error) {
	t := &Transfer{
		set: s, listeners: ls, moving: make(map[*Listener]bool, len(ls)), offered: map[uint64]bool{}, handlers: map[*httpHandler]int{},
		executors: map[*executor]int{}, errors: map[*executor]bool{}, passed: map[*executor]bool{}, stays: stays,
	}
	for _, l := range ls {
		for len(l.retired) > 0 {
			l.retired[0].Expired() // so that each address has one socket
		}
		t.moving[l] = true
		saved, err := t.listener(l)
		if err != nil {
			return nil, err
		}
		t.Listeners = append(t.Listeners, saved)
	}
	t.arenas()
	if kept != nil {
		t.back(kept)
	}
	return t, nil
}

// Next makes the next part, which is in the place of the one before; false: that
// was the last. What cannot move is left out: connections that a thread has, or a
// program that ends with this process.
func (t *Transfer) Next() bool {
	t.before += len(t.Files)
	t.Saved, t.Files = Saved{Conns: t.Conns[:0]}, t.Files[:0]
	held, span := 0, t.set.loop.Span()
	for ; t.next < span && len(t.Files) < partFiles && held < partBytes; t.next++ {
		c, ok := t.set.loop.HandlerOf(t.next).(*conn)
		if !ok || !t.moving[c.l] {
			continue
		}
		if saved, ok := t.conn(c); ok {
			t.Conns, t.conns = append(t.Conns, saved), append(t.conns, c)
			held += len(c.input()) + c.pending()
		} else {
			c.forsake() // its slot is the other process's
		}
	}
	return t.next < span || len(t.Conns) > 0
}

// Moved is how many connections move.
func (t *Transfer) Moved() int { return len(t.conns) }

// File has a descriptor copied, and returns its place.
func (t *Transfer) File(fd int) int {
	t.Files = append(t.Files, fd)
	return t.before + len(t.Files) - 1
}

// back saves what nobody has claimed.
func (t *Transfer) back(k *Kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, some := range k.back {
		for _, r := range some {
			t.Back = append(t.Back, SavedReturned{r.name, t.File(r.fd)})
		}
	}
}

func (t *Transfer) listener(l *Listener) (SavedListener, error) {
	spec, err := json.Marshal(l.spec)
	if err != nil {
		return SavedListener{}, named(l.Name, err)
	}
	d := &l.drain
	s := SavedListener{
		Name: l.Name, Spec: spec, State: l.state, Paused: l.paused, Counters: l.stats.Copy(true),
		Drain: SavedDrain{Began: d.began, Until: d.until, Initial: d.initial, Cut: d.cut, Timeout: d.timeout, From: d.from, Lame: d.lame},
	}
	if l.deadline.Set() {
		s.Until = l.deadline.At()
	}
	if h := l.throttle; h != nil {
		s.Throttle = &SavedThrottle{Bucket: h.bucket.full, Calm: h.calm, Resting: h.resting}
		if h.timer.Set() {
			s.Throttle.Until = h.timer.At()
		}
	}
	if g := l.gates; g != nil {
		s.Gates = &[2]time.Duration{g[reading].bucket.full, g[writing].bucket.full}
	}
	for i, e := range slices.Concat(l.endpoints, l.leaving) {
		if !isClosed(e) {
			saved := t.socket(e)
			saved.Leaving = i >= len(l.endpoints)
			s.Sockets = append(s.Sockets, saved)
		}
	}
	switch h := inner(l.handler).(type) {
	case *forwarder:
		t.forwarder(h, &s)
	case *remoter:
		s.Place = h.place
	case *executor:
		t.passing(h, &s)
	}
	if s.Failing = l.failing; l.failing != "" {
		s.TryAgain = l.tryAgain.At()
	}
	return s, nil
}

func (t *Transfer) socket(e endpoint) SavedSocket {
	s := e.sock()
	saved := SavedSocket{
		File: t.File(s.fd), Family: s.family, Asked: s.asked, Addr: s.addr, Inode: s.number(), Peak: s.peak, Dev: s.dev, Ino: s.ino, Made: s.made,
		Shut: s.shut, Lost: s.lost, Stored: s.stored, Foreign: s.foreign, ForeignName: s.foreignName, Lent: s.lent,
	}
	for _, g := range s.groups {
		saved.Groups = append(saved.Groups, SavedGroup{g.ip, g.iface})
	}
	switch e := e.(type) {
	case *streamSocket:
		saved.Ending, saved.Owed, saved.Paused, saved.Filtered = uint8(e.ending), e.owed, e.paused, e.filtered
	case *packetSocket:
		saved.Paused = e.paused
		for _, o := range e.unsent {
			saved.Unsent = append(saved.Unsent, o.save(0))
		}
		if e.late == nil {
			break
		}
		for d := range directions {
			for _, o := range e.late.lines[d].held {
				saved.Late[d] = append(saved.Late[d], o.save(o.at))
			}
		}
	}
	return saved
}

func (o *outgoing) save(at time.Duration) SavedDatagram {
	return SavedDatagram{At: at, To: rawName(o.to, o.toLen), Control: o.control, Header: o.header, Data: o.data}
}

// rawName is an address as the kernel has it.
func rawName(sa *unix.RawSockaddrAny, size uint32) []byte {
	raw := (*[unix.SizeofSockaddrAny]byte)(unsafe.Pointer(sa))
	return slices.Clone(raw[:min(int(size), len(raw))])
}

// Done lets go of what has moved: it is another process's. What has not moved
// stays, on listeners that have no socket any more and are to be stopped.
func (t *Transfer) Done() {
	for _, c := range t.conns {
		c.part()
	}
	for _, l := range t.listeners {
		for _, e := range slices.Concat(l.endpoints, l.leaving) {
			t.part(e)
		}
		switch h := inner(l.handler).(type) {
		case *forwarder:
			for _, ses := range h.sessions {
				ses.part()
			}
		case *handoffer:
			h.held = nil
		case *executor:
			h.part(t.passed[h])
		}
		l.leaving = nil
		l.spec.Drain.LameDuck = 0 // who balances loads sees no difference
	}
}

func (t *Transfer) part(e endpoint) {
	s := e.sock()
	if s.fd < 0 {
		return
	}
	resting := false
	switch e := e.(type) {
	case *streamSocket:
		resting, e.resting, e.ending, e.paused = e.resting, true, serving, NotPaused
	case *packetSocket:
		resting, e.resting, e.paused, e.unsent = e.resting, true, NotPaused, nil
		if e.late != nil {
			e.late.drop()
		}
	}
	if !resting {
		_ = t.set.loop.Remove(s.fd) // before the close, as always
	}
	sysClose(s.fd)
	s.fd = -1
	t.set.used--
}

// Takes reports whether the connection with that cookie, which a client uses,
// moves. It is known when there is no Next.
func (t *Transfer) Takes(cookie uint64) bool { return t.offered[cookie] }

// Leave lets go of a descriptor that is not a listener's, and has moved.
func (s *Set) Leave(fd int) {
	_ = s.loop.Remove(fd) // before the close, as always
	sysClose(fd)
	s.used--
}
