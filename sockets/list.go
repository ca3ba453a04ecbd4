package sockets

import (
	"context"
	"strconv"
	"strings"
)

// What one turn of the loop looks at, and copies.
const (
	slotsPerTurn   = 4096
	socketsPerTurn = 64
)

// List returns up to most sockets on the loop, of clients and of listeners, at
// descriptors from `from` on, and the descriptor to go on from; -1 at the end.
func (t *Table) List(ctx context.Context, from, most int, full bool) (all []Status, next int, err error) {
	for next = from; next >= 0 && len(all) < most; {
		err := t.on(ctx, func() error {
			var some []Status
			some, next = t.some(next, min(socketsPerTurn, most-len(all)), func(fd int) (Status, bool) { return t.statusAt(fd, full) })
			all = append(all, some...)
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return all, next, nil
}

// some is one turn of List.
func (t *Table) some(from, most int, at func(fd int) (Status, bool)) (some []Status, next int) {
	end := min(from+slotsPerTurn, t.loop.Span())
	for fd := from; fd < end; fd++ {
		if len(some) == most {
			return some, fd
		}
		if st, ok := at(fd); ok {
			some = append(some, st)
		}
	}
	if end == t.loop.Span() {
		end = -1
	}
	return some, end
}

// statusAt is the socket at a descriptor.
func (t *Table) statusAt(fd int, full bool) (Status, bool) {
	if s, ok := t.loop.HandlerOf(fd).(*Socket); ok {
		return s.status(full), true
	}
	if s := t.byID[t.set.CookieAt(fd)]; s != nil {
		return s.status(full), true // a connection that a client uses
	}
	h, ok := t.set.HeldAt(fd, full)
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
	for next := 0; next >= 0; {
		err := t.on(ctx, func() error {
			var found []Status
			if s := t.byID[cookie]; s != nil {
				found = []Status{s.status(full)}
			} else {
				found, next = t.some(next, 1, func(fd int) (Status, bool) {
					if t.set.CookieAt(fd) != cookie {
						return Status{}, false
					}
					return t.statusAt(fd, full)
				})
			}
			if len(found) > 0 {
				st, next = found[0], -1
			}
			return nil
		})
		if err != nil || st.Cookie != 0 {
			return st, err
		}
	}
	return st, gone(id)
}
