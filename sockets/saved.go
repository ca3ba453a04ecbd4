package sockets

import (
	"errors"
	"fmt"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// A Saved socket is as one process leaves it to the next: see listeners.Saved.
// Calls that wait do not move: they end, and their clients call again.
type Saved struct {
	File int // -1: it is a connection of a listener, and moves with that
	ID   uint64

	Family  int
	Network listeners.Network
	Made    time.Time

	Owner, Of             string
	Role                  Role
	Peer                  listeners.Address
	Path                  string // and what proves that it is the socket's
	Dev, Ino              uint64
	Timeout, Idle, Active time.Duration

	Place   uint64
	Unread  []SavedBytes
	Waiting []SavedWaiting // accepted, for nobody yet
}

// SavedBytes is what was received, and not delivered.
type SavedBytes struct {
	Place uint64
	Datagram
}

// SavedWaiting is a connection that was accepted, and not delivered.
type SavedWaiting struct {
	Place uint64
	Saved
}

// Save saves all sockets. It is for the loop, as all here.
func (t *Table) Save(to *listeners.Transfer) (all []Saved) {
	for _, s := range t.byID {
		if s.conn == nil || to.Takes(s.id) {
			all = append(all, s.save(to))
		}
	}
	return all
}

func (s *Socket) save(to *listeners.Transfer) Saved {
	saved := Saved{
		File: -1, ID: s.id, Family: s.Family, Network: s.Network, Made: s.Made, Owner: s.owner, Of: s.of, Role: s.role, Peer: s.peer,
		Path: s.path.path, Dev: s.path.dev, Ino: s.path.ino, Timeout: s.timeout, Idle: s.idle, Active: s.active, Place: s.place,
	}
	if s.conn == nil {
		saved.File = to.File(s.FD)
	}
	for _, u := range s.unread {
		saved.Unread = append(saved.Unread, SavedBytes{u.place, u.what})
	}
	for _, w := range s.waiting {
		saved.Waiting = append(saved.Waiting, SavedWaiting{w.place, w.what.save(to)})
	}
	return saved
}

// Left lets go of what has moved. Who waits is told to call again.
func (t *Table) Left() {
	t.closed = true
	for _, s := range t.byID {
		t.hide(s)
		s.part()
		s.answer(draining())
	}
	for _, s := range t.offers {
		s.answer(draining())
	}
}

func (s *Socket) part() {
	s.t.loop.Disarm(&s.again)
	if s.conn == nil && s.FD >= 0 {
		s.t.set.Leave(s.FD)
	}
	s.FD = -1
	for _, w := range s.waiting {
		w.what.part()
	}
	s.waiting, s.unread = nil, nil
}

// Resume goes on with what another process has left, on a loop that does not turn
// yet, and after the listeners and their connections.
func (t *Table) Resume(all []Saved, from *listeners.Resumption) error {
	for i := range all {
		s, err := t.resume(&all[i], from)
		if err != nil {
			return fmt.Errorf("socket %x of %s: %w", all[i].ID, all[i].Owner, err)
		}
		t.list(s)
	}
	return nil
}

func (t *Table) resume(saved *Saved, from *listeners.Resumption) (*Socket, error) {
	s := &Socket{
		Descriptor: listeners.Descriptor{FD: -1, Family: saved.Family, Network: saved.Network, Made: saved.Made},
		t:          t, id: saved.ID, owner: saved.Owner, of: saved.Of, role: saved.Role, peer: saved.Peer, path: boundPath{saved.Path, saved.Dev, saved.Ino},
		timeout: saved.Timeout, idle: saved.Idle, active: saved.Active, place: saved.Place,
	}
	for _, u := range saved.Unread {
		s.unread.put(taken[Datagram]{u.Place, u.Datagram})
	}
	for i := range saved.Waiting {
		w, err := t.resume(&saved.Waiting[i].Saved, from)
		if err != nil {
			return nil, err
		}
		s.waiting.put(taken[*Socket]{saved.Waiting[i].Place, w})
	}
	if saved.File < 0 {
		if s.conn = from.Taken[s.id]; s.conn == nil {
			return nil, errors.New("its connection did not come")
		}
		s.FD = s.conn.Descriptor().FD
		s.conn.Use(s)
		return s, nil
	}
	fd, err := from.File(saved.File)
	if err != nil {
		return nil, err
	}
	s.FD = fd
	if err := t.set.Acquire(); err != nil {
		return nil, err
	}
	return s, t.loop.Add(s.FD, 0, s)
}
