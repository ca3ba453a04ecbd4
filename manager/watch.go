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
	Info Info // after the change; before it for Deleted
	Time time.Time
}

// Seq is the sequence number of the last change: a watch from there misses
// nothing that happens from now on.
func (m *Manager) Seq() uint64 { return m.changes.seq() }

// Next waits for the change after seq.
func (m *Manager) Next(ctx context.Context, seq uint64) (Change, error) {
	return m.changes.next(ctx, seq)
}

// publish tells the watchers of a change, and the event log who caused it.
func (m *Manager) publish(ctx context.Context, t ChangeType, info Info) {
	m.changes.publish(func(seq uint64) Change { return Change{seq, t, info, time.Now()} })
	m.tell(ctx, eventOf(t, info))
}

// told publishes what an entry has become, and returns it.
func (m *Manager) told(ctx context.Context, t ChangeType, e *entry) Info {
	info := m.info(e)
	m.publish(ctx, t, info)
	return info
}
