package service

import (
	"context"
	"strconv"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

var connectionKind = (&pb.Connection{}).ProtoReflect().Descriptor()

// A connWalk goes through connections, in the order of their descriptors, and
// finds those that match a filter. Of each it asks the kernel no more than the
// filter, and the order if there is one, look at.
type connWalk struct {
	m    *manager.Manager
	want filter
	used fieldSet
}

func (s *connectionService) newWalk(text string) (*connWalk, error) {
	want, used, err := parseQuery(text, connectionKind)
	return &connWalk{s.m, want, used}, err
}

// detail is what to ask of each connection.
func (w *connWalk) detail() (d listeners.Detail) {
	if w.used["tcp_info"] {
		d |= listeners.DetailTCP
	}
	if w.used["queue"] || w.used["memory"] || w.used["inode"] {
		d |= listeners.DetailSize
	}
	return d
}

// convert is connToPB, without what needs a look into /proc unless that is
// asked for.
func (w *connWalk) convert(st listeners.ConnStatus) *pb.Connection {
	if w.used["peer"] {
		return connToPB(st)
	}
	return connFacts(st)
}

// some passes on what matches of up to most connections from one descriptor on,
// and returns the descriptor to go on from; -1 at the end.
func (w *connWalk) some(ctx context.Context, q listeners.ConnQuery, from, most int, f func(listeners.ConnStatus, *pb.Connection) error) (next int, err error) {
	q.Detail |= w.detail()
	conns, next, err := w.m.Conns(ctx, q, from, most)
	for _, st := range conns {
		c := w.convert(st)
		if !w.want.match(c) {
			continue
		}
		if err := f(st, c); err != nil {
			return 0, err
		}
	}
	return next, err
}

// all passes on all that match.
func (w *connWalk) all(ctx context.Context, f func(listeners.ConnStatus, *pb.Connection) error) (err error) {
	for next := 0; next >= 0 && err == nil; {
		next, err = w.some(ctx, listeners.ConnQuery{}, next, maxPage, f)
	}
	return err
}

// page returns the next that match, and where the page after that begins.
func (w *connWalk) page(ctx context.Context, from string, size int) (conns []listeners.ConnStatus, at string, err error) {
	next, _ := strconv.Atoi(from) // ours; empty is the beginning
	for next >= 0 && len(conns) < size {
		next, err = w.some(ctx, listeners.ConnQuery{}, next, size-len(conns), func(st listeners.ConnStatus, _ *pb.Connection) error {
			conns = append(conns, st)
			return nil
		})
		if err != nil {
			return nil, "", err
		}
	}
	if next >= 0 {
		at = strconv.Itoa(next)
	}
	return conns, at, nil
}

// sorted returns the first that follow one place in an order, and the place of
// the last of them. It goes through all connections for every page, and keeps
// one page of them.
func (w *connWalk) sorted(ctx context.Context, by order, from string, size int) (conns []listeners.ConnStatus, at string, err error) {
	t := &top[listeners.ConnStatus]{order: by, most: size + 1}
	if t.after, err = by.parseKey(from); err != nil {
		return nil, "", err
	}
	err = w.all(ctx, func(st listeners.ConnStatus, c *pb.Connection) error {
		t.offer(c.GetName(), c.ProtoReflect(), st)
		return nil
	})
	conns, at = t.page(size)
	return conns, at, err
}
