package sockets

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// AcceptFrom takes a connection of a listener with the remote handler: callers
// are served in the order in which they asked. It stays a connection of its
// listener, and is the caller's socket.
func (t *Table) AcceptFrom(ctx context.Context, who Caller, l *listeners.Listener) (st Status, err error) {
	var got *Socket
	c := &call{
		words: "accept", answer: make(chan error, 1),
		try: func(*Socket) (err error) {
			if got, err = t.take(who, l); err == nil {
				st = got.status(false)
			}
			return err
		},
		undo: func(*Socket) { got.offerAgain() },
	}
	answered := t.watch(who, c)
	err = t.wait(ctx, c.answer, func() error {
		s := t.offers[l]
		if s == nil {
			s = &Socket{Descriptor: listeners.Descriptor{FD: -1}, t: t, timeout: Forever, of: l.Name}
		}
		err := s.begin(c)
		if len(s.lines[reading]) > 0 {
			t.offers[l] = s
		}
		return err
	}, c.withdraw)
	answered(err)
	return st, err
}

// take makes a socket of the connection that has waited longest.
func (t *Table) take(who Caller, l *listeners.Listener) (*Socket, error) {
	if t.count[who.Name] >= t.owned {
		return nil, t.tooMany(who)
	}
	s := &Socket{t: t, owner: who.Name, role: Accepted, timeout: Forever, idle: DefaultIdle, active: t.loop.Clock()}
	conn, err := l.Take(s)
	switch {
	case err != nil:
		return nil, err
	case conn == nil:
		return nil, unix.EAGAIN
	}
	s.Descriptor, s.conn, s.peer = conn.Descriptor(), conn, conn.Remote()
	s.id = s.Cookie()
	if p := conn.Early(); len(p) > 0 {
		s.unread.put(taken[Datagram]{s.place, Datagram{Payload: p}})
		s.place += uint64(len(p))
	}
	t.list(s)
	return s, nil
}

// offered serves who waits for a connection of l, or tells that there will be
// none. Loop only.
func (t *Table) offered(l *listeners.Listener) {
	s := t.offers[l]
	if s == nil {
		return
	}
	for on := true; on; {
		on = s.advance(reading)
	}
	if len(s.lines[reading]) == 0 {
		delete(t.offers, l)
	}
}

// offerAgain has a connection whose client is gone wait for another.
func (s *Socket) offerAgain() {
	if s.FD < 0 || s.busy() {
		return
	}
	s.t.hide(s)
	s.FD = -1
	s.conn.Return()
}

// Ended is listeners.User: something else than its client has closed it.
func (s *Socket) Ended(why error) {
	s.t.hide(s)
	s.t.loop.Disarm(&s.again)
	s.FD, s.unread = -1, nil
	s.answer(&listeners.Fault{
		Reason: listeners.SocketNotFound, Message: fmt.Sprintf("%s was closed, as a connection of %s: %v", s.name(), s.conn.Listener(), why),
		Err: unix.EBADF, Meta: map[string]string{"socket": s.name()},
	})
}
