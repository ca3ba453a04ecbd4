package manager

import (
	"context"
	"time"
)

// A ChangeType is what happened to a listener.
type ChangeType uint8

// The types.
const (
	Added    ChangeType = iota + 1
	Modified            // what is wanted changed
	StatusChanged
	Deleted
)

// A Change is what happened to one listener.
type Change struct {
	Seq  uint64
	Type ChangeType
	Info *Info // after the change; before it for Deleted. Not to be changed
	Time time.Time
}

// weight is about what a change takes in memory: most of it is what the handler
// has to send.
func (c Change) weight() int { return 1024 + c.Info.size }

// Seq is the sequence number of the last change: a watch from there misses
// nothing that happens from now on.
func (m *Manager) Seq() uint64 { return m.changes.seq() }

// Next waits for the change after seq.
func (m *Manager) Next(ctx context.Context, seq uint64) (Change, error) {
	return m.changes.next(ctx, seq)
}

// publish tells the watchers of a change, and the event log who caused it. What
// becomes of info is not to be changed any more.
func (m *Manager) publish(ctx context.Context, t ChangeType, info *Info) {
	now := time.Now()
	m.changes.publish(func(seq uint64) Change { return Change{seq, t, info, now} })
	l := logged{time: now, cause: causeOf(ctx), change: t, info: info}
	if info.size > wordsLater {
		e := eventOf(t, info)
		l.event, l.info = &e, nil
	}
	m.events.publish(func(seq uint64) logged { l.seq = seq; return l })
}

// told publishes what an entry has become, and returns it in full.
func (m *Manager) told(ctx context.Context, t ChangeType, e *entry) Info {
	infos := m.infos(context.WithoutCancel(ctx), []*entry{e}, true)
	info := infos[0]
	infos[0].Live.Sockets = nil // who wants them asks the kernel again
	m.publish(ctx, t, &infos[0])
	return info
}
