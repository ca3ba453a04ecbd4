package sockets

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// What one turn of the loop looks at, and copies.
const (
	slotsPerTurn   = 4096
	socketsPerTurn = 64
)

// A place is that of a loop, the first is 0, and a descriptor on it, below 2^26.
const placeShift = 26

// List returns up to most sockets, of clients and of listeners, from a place on, 0
// at first, and the place to go on from; -1 at the end.
func (t *Table) List(ctx context.Context, from, most int, full bool) (all []Status, next int, err error) {
	next, err = t.walk(ctx, from, func(set *listeners.Set) func(fd int) (Status, bool) {
		return func(fd int) (Status, bool) { return t.statusAt(set, fd, full) }
	}, most, &all)
	if err != nil {
		return nil, 0, err
	}
	return all, next, nil
}

// walk appends up to most of what of gives, from a place on, some in each turn.
func (t *Table) walk(ctx context.Context, at int, of func(*listeners.Set) func(fd int) (Status, bool), most int, all *[]Status) (next int, err error) {
	for at >= 0 && len(*all) < most {
		number, fd := at>>placeShift, at&(1<<placeShift-1)
		if number > len(t.beside) {
			return -1, nil // a token of a daemon that had more loops
		}
		if err := t.onLoop(ctx, number, func(loop *mux.Loop, set *listeners.Set) {
			some, next := some(loop, fd, min(socketsPerTurn, most-len(*all)), of(set))
			*all = append(*all, some...)
			switch {
			case next >= 0:
				at = number<<placeShift | next
			case number < len(t.beside):
				at = (number + 1) << placeShift
			default:
				at = -1
			}
		}); err != nil {
			return 0, err
		}
	}
	return at, nil
}

// onLoop runs f on the numbered loop.
func (t *Table) onLoop(ctx context.Context, number int, f func(*mux.Loop, *listeners.Set)) error {
	if number == 0 {
		return t.on(ctx, func() error { f(t.loop, t.set); return nil })
	}
	b := t.beside[number-1]
	err := b.Loop.Do(ctx, func() error { f(b.Loop, b.Set); return nil })
	if errors.Is(err, mux.ErrClosed) {
		return draining()
	}
	return err
}

// some is one turn of a walk.
func some(loop *mux.Loop, from, most int, at func(fd int) (Status, bool)) (some []Status, next int) {
	end := min(from+slotsPerTurn, loop.Span())
	for fd := from; fd < end; fd++ {
		if len(some) == most {
			return some, fd
		}
		if st, ok := at(fd); ok {
			some = append(some, st)
		}
	}
	if end == loop.Span() {
		end = -1
	}
	return some, end
}

// statusAt is the socket at a descriptor of the loop of set.
func (t *Table) statusAt(set *listeners.Set, fd int, full bool) (Status, bool) {
	if set != t.set { // it has connections of listeners only
		return heldAt(set, fd, full)
	}
	if s, ok := t.loop.HandlerOf(fd).(*Socket); ok {
		return s.status(full), true
	}
	if s := t.byID[t.set.CookieAt(fd)]; s != nil {
		return s.status(full), true // a connection that a client uses
	}
	return heldAt(set, fd, full)
}

// heldAt is the socket of a listener, or one of its connections.
func heldAt(set *listeners.Set, fd int, full bool) (Status, bool) {
	h, ok := set.HeldAt(fd, full)
	if !ok {
		return Status{}, false
	}
	st := Status{
		SocketStatus: h.SocketStatus, Role: Listening, Listener: h.Listener, Remote: h.Remote, TCP: h.TCP, Congestion: h.Congestion,
	}
	if h.Connection {
		st.Role, st.Connection = Accepted, h.Cookie
	}
	return st, true
}

// Get returns one socket. Anyone may see it.
func (t *Table) Get(ctx context.Context, id string, full bool) (st Status, err error) {
	cookie, err := strconv.ParseUint(strings.TrimPrefix(id, prefix), 16, 64)
	if err != nil {
		return st, gone(id)
	}
	var found []Status
	_, err = t.walk(ctx, 0, func(set *listeners.Set) func(fd int) (Status, bool) {
		if set == t.set {
			if s := t.byID[cookie]; s != nil {
				found = append(found, s.status(full))
			}
		}
		return func(fd int) (Status, bool) {
			if len(found) > 0 || set.CookieAt(fd) != cookie {
				return Status{}, false
			}
			return t.statusAt(set, fd, full)
		}
	}, 1, &found)
	switch {
	case err != nil:
		return st, err
	case len(found) == 0:
		return st, gone(id)
	}
	return found[0], nil
}
