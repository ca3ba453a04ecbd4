package sockets

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// Accept is accept4(2). The new socket is the caller's.
func (t *Table) Accept(ctx context.Context, who Caller, id string) (st Status, err error) {
	var got taken[*Socket]
	err = t.run(ctx, who, id, &call{
		words: "accept",
		try: func(s *Socket) (err error) {
			if got, err = s.accept(who); err == nil {
				st = got.what.status(false)
			}
			return err
		},
		undo: func(s *Socket) { s.takeBack(got) },
	})
	return st, err
}

// accept takes what was accepted for nobody, or asks the kernel.
func (s *Socket) accept(who Caller) (got taken[*Socket], err error) {
	if len(s.waiting) > 0 {
		got = s.waiting[0]
		if s.t.count[who.Name] >= s.t.owned {
			return got, s.t.tooMany(who)
		}
		s.waiting.drop()
		got.what.owner, got.what.timeout, got.what.active = who.Name, Forever, s.t.loop.Clock()
		s.t.list(got.what)
		return got, nil
	}
	if err := s.t.room(who); err != nil {
		return got, err
	}
	fd, from, err := unix.Accept4(s.FD, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		s.t.set.Release()
		return got, os.NewSyscallError("accept4", err)
	}
	d := listeners.Descriptor{FD: fd, Family: s.Family, Network: s.Network, Made: time.Now()}
	conn, err := s.t.adopt(who, d, s.idle)
	if err != nil {
		return got, err
	}
	conn.role, conn.peer = Accepted, listeners.AddressOf(s.Network, from)
	s.place++
	return taken[*Socket]{s.place, conn}, nil
}

// takeBack puts a connection whose client is gone to the front of the line.
func (s *Socket) takeBack(got taken[*Socket]) {
	conn := got.what
	if conn.FD < 0 || conn.busy() { // somebody found it, and uses it
		return
	}
	if s.FD < 0 { // there is no line any more
		conn.close(gone(conn.name()))
		return
	}
	s.t.hide(conn)
	s.waiting.put(got)
	s.revive()
}
