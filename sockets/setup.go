package sockets

import (
	"context"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// Bind is bind(2). It returns what getsockname says then.
func (t *Table) Bind(ctx context.Context, who Caller, id, uri string) (local listeners.Address, err error) {
	to, err := t.resolve(ctx, who, id, uri)
	if err != nil {
		return local, err
	}
	err = t.with(ctx, who, id, func(s *Socket) error {
		sa, err := s.sockaddr(to[0])
		if err == nil {
			err = os.NewSyscallError("bind", unix.Bind(s.FD, sa))
		}
		if err != nil {
			return refused(s.name(), "bind "+uri, err)
		}
		s.role, s.path = Listening, pathOf(to[0])
		local = s.Local()
		return nil
	})
	return local, err
}

// Listen is listen(2). A backlog of 0 is the most that the kernel allows. It
// returns the backlog in force.
func (t *Table) Listen(ctx context.Context, who Caller, id string, backlog uint32) (limit uint32, err error) {
	n := int(min(backlog, math.MaxInt32))
	if n == 0 {
		n = math.MaxInt32 // the kernel cuts it to net.core.somaxconn
	}
	err = t.with(ctx, who, id, func(s *Socket) error {
		err := os.NewSyscallError("listen", unix.Listen(s.FD, n))
		if err == nil {
			s.role = Listening
			limit, err = s.Backlog()
		}
		return refused(s.name(), "listen", err)
	})
	return limit, err
}

// SetTimeout is settimeout: Forever, 0 not to wait, or how long calls made from
// now on wait.
func (t *Table) SetTimeout(ctx context.Context, who Caller, id string, timeout time.Duration) error {
	return t.with(ctx, who, id, func(s *Socket) error {
		s.timeout = timeout
		return nil
	})
}

// Shutdown is shutdown(2).
func (t *Table) Shutdown(ctx context.Context, who Caller, id string, read, write bool) error {
	how := map[[2]bool]int{{true, false}: unix.SHUT_RD, {false, true}: unix.SHUT_WR, {true, true}: unix.SHUT_RDWR}
	n, ok := how[[2]bool{read, write}]
	if !ok {
		return invalid("read, write", "neither is set: say what to end", unix.EINVAL)
	}
	return t.with(ctx, who, id, func(s *Socket) error {
		return refused(s.name(), "shut down", os.NewSyscallError("shutdown", unix.Shutdown(s.FD, n)))
	})
}

// CloseSocket is close(2). Calls that wait on it are told that it is gone.
func (t *Table) CloseSocket(ctx context.Context, who Caller, id string) error {
	return t.with(ctx, who, id, func(s *Socket) error {
		s.close(gone(id))
		return nil
	})
}
