package manager

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/sockmgr/sockmgr/listeners"
)

// connsPerTurn is how many connections one turn of the loop copies at most.
const connsPerTurn = 64

// Conns returns up to most open connections from a place on, 0 at first, and the
// place to go on from; -1 at the end. They are in order of their loops, and there
// of their descriptors. A loop is held up for a bounded time only, however many
// there are.
func (m *Manager) Conns(ctx context.Context, q listeners.ConnQuery, from, most int) (conns []listeners.ConnStatus, next int, err error) {
	var parts [][]listeners.ConnStatus // joined beside the loop
	n := 0
	next, err = m.walk(ctx, from, func() bool { return n >= most }, func(set *listeners.Set, from int) int {
		some, next := set.Conns(q, from, min(connsPerTurn, most-n))
		parts, n = append(parts, some), n+len(some)
		return next
	})
	if err != nil {
		return nil, 0, err
	}
	return slices.Concat(parts...), next, nil
}

// AskConns asks the kernel for what of conns is not known yet.
func (m *Manager) AskConns(ctx context.Context, conns []listeners.ConnStatus, detail listeners.Detail) error {
	for chunk := range slices.Chunk(conns, connsPerTurn) {
		err := m.atEach(ctx, chunk, func(set *listeners.Set, c *listeners.ConnStatus) bool { return set.AskConn(c, detail) })
		if err != nil {
			return err
		}
	}
	return nil
}

// connRef finds a connection again for as long as it is open.
type connRef struct {
	loop   int // where it was
	fd     int
	cookie uint64
}

// find looks for a connection by its cookie in hex, or by its peer's address.
func (m *Manager) find(ctx context.Context, id string) (ref connRef, err error) {
	cookie, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		cookie = 0
	}
	ref.fd = -1
	_, err = m.walk(ctx, 0, func() bool { return ref.fd >= 0 }, func(set *listeners.Set, from int) (next int) {
		ref.loop = set.Number()
		ref.fd, ref.cookie, next = set.FindConn(cookie, id, from)
		return next
	})
	if err == nil && ref.fd < 0 {
		err = connGone(id)
	}
	return ref, err
}

// refOf is that of one whose status was read.
func refOf(st *listeners.ConnStatus) connRef { return connRef{st.Loop, st.FD, st.Cookie} }

func connGone(id string) error {
	return &listeners.Fault{
		Reason: listeners.ConnectionNotFound, Message: fmt.Sprintf("there is no open connection %q", id),
		Fix: "sockctl conn ls", Meta: map[string]string{"connection": id},
	}
}

// Conn returns one connection, in full.
func (m *Manager) Conn(ctx context.Context, id string) (st listeners.ConnStatus, err error) {
	ref, err := m.find(ctx, id)
	if err != nil {
		return st, err
	}
	err = m.atConn(ctx, id, ref, func(set *listeners.Set) (found bool) {
		st, found = set.ConnStatus(ref.fd, ref.cookie)
		return found
	})
	return st, err
}

// CloseConns closes those of conns that are still open and returns how many. It
// closes a bounded number a turn.
func (m *Manager) CloseConns(ctx context.Context, conns []listeners.ConnStatus, reset bool) (closed int, err error) {
	for chunk := range slices.Chunk(conns, 64) {
		err := m.atEach(ctx, chunk, func(set *listeners.Set, c *listeners.ConnStatus) bool {
			found := set.CloseConn(c.FD, c.Cookie, reset)
			if found {
				closed++
			}
			return found
		})
		if err != nil {
			return closed, err
		}
	}
	return closed, nil
}

// RetireConns tells handlers to end connections as soon as they lose nothing by
// that.
func (m *Manager) RetireConns(ctx context.Context, conns []listeners.ConnStatus) error {
	for chunk := range slices.Chunk(conns, 64) {
		err := m.atEach(ctx, chunk, func(set *listeners.Set, c *listeners.ConnStatus) bool { return set.RetireConn(c.FD, c.Cookie) })
		if err != nil {
			return err
		}
	}
	return nil
}

// EachOpen passes on the cookies of those of conns that are open.
func (m *Manager) EachOpen(ctx context.Context, conns []listeners.ConnStatus, f func(cookie uint64)) error {
	for chunk := range slices.Chunk(conns, connsPerTurn) {
		err := m.atEach(ctx, chunk, func(set *listeners.Set, c *listeners.ConnStatus) bool {
			open := set.IsOpen(c.FD, c.Cookie)
			if open {
				f(c.Cookie)
			}
			return open
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// SetConnOptions changes options of one connection.
func (m *Manager) SetConnOptions(ctx context.Context, id string, values map[string]listeners.Value, checkOnly bool) ([]listeners.Result, error) {
	st, err := m.Conn(ctx, id)
	if err != nil {
		return nil, err
	}
	all, err := parseOptions(values, st.Network.Class(), onConnOnly)
	if err != nil {
		return nil, err
	}
	if checkOnly {
		e, err := m.entry(st.Listener)
		if err != nil {
			return nil, connGone(id)
		}
		var spec listeners.Spec
		m.with(e, func(e *entry) { spec = e.record.Spec })
		return m.previewConn(ctx, id, refOf(&st), spec, all)
	}
	var results []listeners.Result
	err = m.atConn(ctx, id, refOf(&st), func(set *listeners.Set) bool {
		for _, w := range all[len(results):] {
			r, found := set.TuneConn(st.FD, st.Cookie, w.option, w.value)
			if !found {
				return false
			}
			results = append(results, r)
		}
		return true
	})
	m.tellTuned(ctx, fmt.Sprintf("connections/%x", st.Cookie), results)
	m.overruleConn(ctx, st.Listener, st.Cookie, results)
	return results, err
}

// atConn calls f on the loop of a connection, which has to be there.
func (m *Manager) atConn(ctx context.Context, id string, ref connRef, f func(set *listeners.Set) (found bool)) error {
	found, err := m.at(ctx, ref, f)
	if err == nil && !found {
		err = connGone(id)
	}
	return err
}

func onConnOnly(o *listeners.Option) string {
	if !o.OnConnection() {
		return "cannot be set on a connection: it is the listener's"
	}
	return ""
}

// ConnOptions returns the options in force on one connection.
func (m *Manager) ConnOptions(ctx context.Context, id string, names []string) (values map[string]listeners.Value, err error) {
	if err := KnownOptions(names); err != nil {
		return nil, err
	}
	ref, err := m.find(ctx, id)
	if err != nil {
		return nil, err
	}
	err = m.atConn(ctx, id, ref, func(set *listeners.Set) (found bool) {
		values, found = set.ConnInForce(ref.fd, ref.cookie, names)
		return found
	})
	return values, err
}
