package sockets

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// Connect is connect(2) and its outcome. Of a name with several addresses, the
// next is tried when one fails.
func (t *Table) Connect(ctx context.Context, who Caller, id, uri string) (st Status, err error) {
	to, err := t.resolve(ctx, who, id, uri)
	if err != nil {
		return st, err
	}
	err = t.run(ctx, who, id, &call{
		words: "connect to " + uri, side: writing,
		try: func(s *Socket) error {
			for {
				// It is asked for again when the socket is writable: Linux then
				// gives the outcome of the attempt that is under way.
				sa, err := s.sockaddr(to[0])
				if err == nil {
					err = t.set.MayConnect(to[0])
				}
				if err == nil {
					err = os.NewSyscallError("connect", unix.Connect(s.FD, sa))
				}
				switch {
				case err == nil:
					s.role, s.peer = Outbound, to[0]
					st = s.status(false)
					return nil
				case again(err) || len(to) == 1:
					return err
				}
				to = to[1:]
			}
		},
	})
	return st, err
}
