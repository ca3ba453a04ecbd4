package listeners

import "fmt"

// arenas saves the memory that durable connections have.
func (t *Transfer) arenas() {
	if t.set.durables == nil {
		return
	}
	for i, a := range t.set.durables.arenas {
		if a != nil {
			t.Arenas = append(t.Arenas, SavedArena{Number: i, File: t.File(a.fd)})
		}
	}
}

// arenas goes on with it: slots that are live are those of connections that have
// moved too.
func (r *Resumption) arenas(all []SavedArena) error {
	if r.kept == nil {
		return nil
	}
	if r.set.durables == nil {
		r.set.durables = newDurables(r.set, r.kept)
	}
	for _, s := range all {
		fd, err := r.File(s.File)
		if err != nil {
			return err
		}
		if err := r.set.durables.adopt(s.Number, fd); err != nil {
			return err
		}
	}
	return nil
}

// settle is for when all connections have come that move: slots that were in use
// are theirs, or of those that the process before has forsaken.
func (k *durables) settle() {
	for _, one := range k.found {
		if one.word(wordLive) == 0 {
			k.empty = append(k.empty, one)
		}
	}
	k.found = nil
}

// durable gives a connection that has moved its slot.
func (r *Resumption) durable(c *conn, s *SavedDurable) error {
	k := r.set.durables
	if k == nil || s.Slot < 0 || s.Slot >= maxArenas*arenaSlots || !k.isLive(s.Slot) {
		return fmt.Errorf("a connection has come without its slot %d", s.Slot)
	}
	d := &durable{slot: slot{k.arenas[s.Slot/arenaSlots], s.Slot % arenaSlots}, set: k, got: s.Got, joined: s.Joined, touched: [2]int{slotBuffer, slotBuffer}}
	if err := d.read(); err != nil {
		return err
	}
	c.rarely().durable = d
	return nil
}

// read reads the moment that holds.
func (d *durable) read() error {
	data, err := d.record(recordMoments + int(d.word(wordMoment)&1)*recordSize)
	if err != nil {
		return err
	}
	return d.decode(data)
}
