package manager

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// onLost is called on the loop.
func (m *Manager) onLost(l *listeners.Listener, a listeners.Address) {
	m.changedMu.Lock()
	m.lost[l.Name] = true
	m.changedMu.Unlock()
	m.hear(Event{
		Resource: "listeners/" + l.Name, Type: "listener.lost", Severity: Failure,
		Message:    fmt.Sprintf("%s: the socket at %v was shut from outside (ss -K, or shutdown(2) by who has a copy); it is bound again", l.Name, a),
		Attributes: map[string]string{"address": a.String()},
	})
}

// healLost binds again what was shut from outside, and returns when it wants to
// be called again: what cannot be had back is tried until it can.
func (m *Manager) healLost() time.Duration {
	m.changedMu.Lock()
	names := slices.Sorted(maps.Keys(m.lost))
	clear(m.lost)
	m.changedMu.Unlock()
	next := time.Hour
	for _, name := range names {
		if err := m.heal(name); err != nil {
			m.log.Warn("a socket that was shut from outside cannot be bound again; it is tried again", "listener", name, "error", err)
			m.changedMu.Lock()
			m.lost[name] = true
			m.changedMu.Unlock()
			next = retryLeast
		}
	}
	return next
}

func (m *Manager) heal(name string) error {
	release, err := m.change(context.Background(), name)
	if err != nil {
		return nil // shutting down
	}
	defer release()
	e, record, err := m.current(name, "")
	if err != nil || !m.isRunning(e) || record.Desired == WantStopped {
		return nil // it went meanwhile
	}
	s := &step{e: e, before: record, after: record, heals: true}
	if err := m.commit(context.Background(), []*step{s}, true); err != nil {
		return err
	}
	info := m.info(e)
	m.tell(context.Background(), Event{
		Resource: "listeners/" + name, Type: "listener.healed", Severity: Notice, Message: name + " is bound again",
		Attributes: map[string]string{"bound": boundText(&info)},
	})
	return nil
}
