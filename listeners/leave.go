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
type Transfer struct {
	Saved
	Files []int // that are copied to the other process

	set       *Set
	listeners []*Listener
	conns     []*conn
	handlers  map[*httpHandler]int // 1 + places in Saved.Handlers
}

// Transfer saves the listeners and their connections. What cannot move is left
// out: connections that a thread or a program has.
func (s *Set) Transfer(ls []*Listener, kept *Kept) (*Transfer, error) {
	t := &Transfer{set: s, listeners: ls, handlers: map[*httpHandler]int{}}
	moving := make(map[*Listener]bool, len(ls))
	for _, l := range ls {
		for len(l.retired) > 0 {
			l.retired[0].Expired() // so that each address has one socket
		}
		moving[l] = true
		saved, err := t.listener(l)
		if err != nil {
			return nil, err
		}
		t.Listeners = append(t.Listeners, saved)
	}
	for fd := range s.loop.Span() {
		c, ok := s.loop.HandlerOf(fd).(*conn)
		if !ok || !moving[c.l] {
			continue
		}
		if saved, ok := t.conn(c); ok {
			t.Conns, t.conns = append(t.Conns, saved), append(t.conns, c)
		} else {
			c.forsake() // its slot is the other process's
		}
	}
	t.arenas()
	if kept != nil {
		t.back(kept)
	}
	return t, nil
}

// Moved is how many connections move.
func (t *Transfer) Moved() int { return len(t.conns) }

// File has a descriptor copied, and returns its place.
func (t *Transfer) File(fd int) int {
	t.Files = append(t.Files, fd)
	return len(t.Files) - 1
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
	}
	return s, nil
}

func (t *Transfer) socket(e endpoint) SavedSocket {
	s := e.sock()
	saved := SavedSocket{
		File: t.File(s.fd), Family: s.family, Asked: s.asked, Addr: s.addr, Inode: s.inode, Peak: s.peak, Dev: s.dev, Ino: s.ino, Made: s.made,
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

// Takes reports whether the connection with that cookie moves.
func (t *Transfer) Takes(cookie uint64) bool {
	for _, c := range t.conns {
		if c.cookie == cookie {
			return true
		}
	}
	return false
}

// Leave lets go of a descriptor that is not a listener's, and has moved.
func (s *Set) Leave(fd int) {
	_ = s.loop.Remove(fd) // before the close, as always
	sysClose(fd)
	s.used--
}
