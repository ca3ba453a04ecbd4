package listeners

import (
	"fmt"
	"slices"
	"strconv"
)

// durables are the slots of a Set. Loop only.
type durables struct {
	set    *Set
	kept   *Kept
	arenas []*arena // by number; nil: none
	empty  []slot
	found  []slot // in use when they came: see Recover
	full   bool   // and that was told
	alone  bool   // there is no keeper, and that was told
}

// newDurables has the slots that came back, of which those in use wait for
// recover.
func newDurables(s *Set, kept *Kept) *durables {
	k := &durables{set: s, kept: kept, arenas: make([]*arena, maxArenas)}
	for _, a := range kept.backArenas() {
		if err := k.adopt(a.number, a.fd); err != nil {
			s.log.Warn("connections that came back are closed: nothing is known of them", "error", err)
			sysClose(a.fd)
			kept.remove(a.name)
		}
	}
	for _, c := range kept.takeConns(func(c returnedConn) bool { return !k.isLive(c.number) }) { // it was about to be closed, or its arena is of no use
		hangUp(c.fd)
		sysClose(c.fd)
		kept.remove(c.name)
	}
	return k
}

// adopt takes an arena that another process had. When it fails fd is the caller's.
func (k *durables) adopt(number, fd int) error {
	if number < 0 || number >= maxArenas || k.arenas[number] != nil {
		return fmt.Errorf("arena %d is there twice, or cannot be", number)
	}
	a, err := oldArena(number, fd)
	if err != nil {
		return err
	}
	k.arenas[number] = a
	k.set.used++
	for i := range arenaSlots {
		if one := (slot{a, i}); one.word(wordLive) == 0 {
			k.empty = append(k.empty, one)
		} else {
			k.found = append(k.found, one)
		}
	}
	return nil
}

// isLive reports whether the slot is a connection's.
func (k *durables) isLive(number int) bool {
	a := k.arenas[number/arenaSlots]
	return a != nil && slot{a, number % arenaSlots}.word(wordLive) != 0
}

// take is an empty slot; nil: there is none, or nobody to keep it.
func (k *durables) take() *durable {
	if k.kept.who() == nil {
		if !k.alone {
			k.alone = true
			k.set.log.Warn("durability=connections does nothing: there is no sockmgr supervise, nor systemd with FileDescriptorStoreMax=")
		}
		return nil
	}
	if len(k.empty) == 0 {
		k.grow()
	}
	n := len(k.empty)
	if n == 0 {
		if !k.full {
			k.full = true
			k.set.log.Warn("there is no room for more durable connections: further ones are lost if the daemon is killed", "durable", maxArenas*arenaSlots)
		}
		return nil
	}
	one := k.empty[n-1]
	if k.empty = k.empty[:n-1]; n == slotsReady {
		_ = k.set.loop.Post(k.ready) // when it has ended all is closed
	}
	return &durable{slot: one, set: k}
}

// slotsReady is how many slots are to be empty: to make more takes so long that a
// connection which waited for that would rather be lost.
const slotsReady = 64

// ready makes slots before they are needed.
func (k *durables) ready() {
	if len(k.empty) < slotsReady && k.kept.who() != nil {
		k.grow()
	}
}

// grow makes another arena if there may be one.
func (k *durables) grow() {
	number := slices.Index(k.arenas, nil)
	if number < 0 || k.set.full() {
		return
	}
	a, err := newArena(number)
	if err != nil {
		k.set.log.Warn("there is no memory for durable connections", "error", err)
		return
	}
	if !k.store(arenaName(number), a.fd) {
		a.close()
		return
	}
	k.set.used++
	k.arenas[number] = a
	for i := range arenaSlots {
		k.empty = append(k.empty, slot{a, arenaSlots - 1 - i})
	}
}

// put takes a slot back.
func (k *durables) put(one slot) {
	k.empty = append(k.empty, one)
	k.full = false
}

// store leaves a copy with the keeper; it reports whether there was room.
func (k *durables) store(name string, fd int) bool {
	keeper := k.kept.who()
	return keeper != nil && keeper.StoreIfRoom(name, fd)
}

func (k *durables) remove(name string) { k.kept.remove(name) }

func arenaName(n int) string { return "@a" + strconv.FormatInt(int64(n), 36) }

// close leaves the memory to who has a copy.
func (k *durables) close() {
	for i, a := range k.arenas {
		if a != nil {
			a.close()
			k.arenas[i] = nil
		}
	}
}

// StoreConnsAgain begins to leave all durable connections, and all programs, with
// a keeper that has nothing yet, some in each turn.
func (s *Set) StoreConnsAgain() {
	if k := s.durables; k != nil {
		for i, a := range k.arenas {
			if a != nil {
				k.store(arenaName(i), a.fd)
			}
		}
	}
	s.sweepFrom(0, nil, func(c *conn) {
		if e, ok := c.handler.(*execConn); ok {
			e.program.storeAgain()
		}
		d := c.durable()
		if d == nil {
			return
		}
		s.durables.store(clientName(d.number()), int(c.fd))
		if r := c.relay(); r != nil && d.joined {
			s.durables.store(upstreamName(d.number()), int(r.fd))
		}
	}, func() {})
}
