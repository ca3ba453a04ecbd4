package manager

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/sockmgr/sockmgr/listeners"
)

// connsPerTurn is how many connections one turn of the loop copies at most.
const connsPerTurn = 256

// Conns returns up to most open connections at descriptors from `from` on, and
// the descriptor to go on from; -1 at the end. The loop is held up for a bounded
// time only, however many there are.
func (m *Manager) Conns(ctx context.Context, q listeners.ConnQuery, from, most int) (conns []listeners.ConnStatus, next int, err error) {
	for next = from; next >= 0 && len(conns) < most; {
		err := m.on(ctx, func() error {
			var some []listeners.ConnStatus
			some, next = m.set.Conns(q, next, min(connsPerTurn, most-len(conns)))
			conns = append(conns, some...)
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return conns, next, nil
}

// AskConns asks the kernel for what of conns is not known yet.
func (m *Manager) AskConns(ctx context.Context, conns []listeners.ConnStatus, detail listeners.Detail) error {
	for chunk := range slices.Chunk(conns, connsPerTurn) {
		err := m.on(ctx, func() error {
			m.set.AskConns(chunk, detail)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// connRef finds a connection again for as long as it is open.
type connRef struct {
	fd     int
	cookie uint64
}

// find looks for a connection by its cookie in hex, or by its peer's address.
func (m *Manager) find(ctx context.Context, id string) (ref connRef, err error) {
	cookie, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		cookie = 0
	}
	for next := 0; next >= 0; {
		err := m.on(ctx, func() error {
			ref.fd, ref.cookie, next = m.set.FindConn(cookie, id, next)
			return nil
		})
		if err != nil || ref.fd >= 0 {
			return ref, err
		}
	}
	return ref, connGone(id)
}

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
	err = m.on(ctx, func() error {
		var found bool
		if st, found = m.set.ConnStatus(ref.fd, ref.cookie); !found {
			return connGone(id)
		}
		return nil
	})
	return st, err
}

// CloseConns closes those of conns that are still open and returns how many. It
// closes a bounded number a turn.
func (m *Manager) CloseConns(ctx context.Context, conns []listeners.ConnStatus, reset bool) (closed int, err error) {
	for chunk := range slices.Chunk(conns, 64) {
		err := m.on(ctx, func() error {
			for _, c := range chunk {
				if m.set.CloseConn(c.FD, c.Cookie, reset) {
					closed++
				}
			}
			return nil
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
		err := m.on(ctx, func() error {
			for _, c := range chunk {
				m.set.RetireConn(c.FD, c.Cookie)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// EachOpen passes on the cookies of those of conns that are open.
func (m *Manager) EachOpen(ctx context.Context, conns []listeners.ConnStatus, f func(cookie uint64)) error {
	for chunk := range slices.Chunk(conns, connsPerTurn) {
		err := m.on(ctx, func() error {
			for _, c := range chunk {
				if m.set.IsOpen(c.FD, c.Cookie) {
					f(c.Cookie)
				}
			}
			return nil
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
		return m.previewConn(ctx, id, connRef{st.FD, st.Cookie}, spec, all)
	}
	var results []listeners.Result
	err = m.on(ctx, func() error {
		for _, w := range all {
			r, found := m.set.TuneConn(st.FD, st.Cookie, w.option, w.value)
			if !found {
				return connGone(id)
			}
			results = append(results, r)
		}
		return nil
	})
	m.tellTuned(ctx, fmt.Sprintf("connections/%x", st.Cookie), results)
	m.overruleConn(ctx, st.Listener, st.Cookie, results)
	return results, err
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
	err = m.on(ctx, func() error {
		var found bool
		if values, found = m.set.ConnInForce(ref.fd, ref.cookie, names); !found {
			return connGone(id)
		}
		return nil
	})
	return values, err
}
