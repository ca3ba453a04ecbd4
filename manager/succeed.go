package manager

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// CheckState finds out whether this program could go on with what is in a copy of
// the store, which it closes: it reads it, and the certificates that are needed.
func CheckState(file *os.File) error {
	records, err := checkStore(file)
	if err != nil {
		return fmt.Errorf("the state store %w", err)
	}
	for _, r := range records {
		if r.Spec.TLS == nil || r.Desired == WantStopped {
			continue
		}
		if _, err := listeners.OpenTLS(r.Spec.TLS); err != nil {
			return fmt.Errorf("listener %s: %w", r.Name, err)
		}
	}
	return nil
}

// Prepare returns a Manager that is to take up what another daemon hands over,
// and does nothing yet. The store is free. epoch is where that one's clock began.
func Prepare(c Config, epoch time.Duration) (*Manager, error) {
	p, err := mux.NewPoller(c.Poller)
	if err != nil {
		return nil, err
	}
	loop, err := mux.ContinueLoop(p, epoch)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	m, _, err := newOn(loop, c)
	if err != nil {
		return nil, errors.Join(err, loop.Close())
	}
	return m, nil
}

// TakeUp makes all of it m's. Nothing happens before Begin; if it is not to be
// called, the process is to end.
func (m *Manager) TakeUp(all *Estate, files []int) error {
	if m.store.path == "" {
		m.store.revision.Store(all.Revision)
	}
	r, err := m.set.Resume(&all.Saved, files, m.kept)
	if err != nil {
		return err
	}
	if err := m.sockets.Resume(all.Sockets, files, r.Taken); err != nil {
		return err
	}
	for i := range all.Entries {
		s := &all.Entries[i]
		record, err := decodeRecord([]byte(s.Name), s.Record)
		if err != nil {
			return fmt.Errorf("listener %s: %w", s.Name, err)
		}
		e := &entry{record: record, stats: &listeners.Counters{}, started: s.Started, cause: s.Cause, retry: s.Retry, backoff: s.Backoff}
		if s.Failure != "" {
			e.failure = errors.New(s.Failure)
		}
		if s.Counters != nil {
			e.stats = s.Counters
		}
		if s.Live {
			if e.live, e.stats = r.Listeners[s.Name], r.Counters[s.Name]; e.live == nil {
				return fmt.Errorf("listener %s came without its sockets", s.Name)
			}
			m.attached[e.live] = true
		}
		m.insertLocked(e) // nobody else knows of m yet
	}
	if n := len(all.Events); n > 0 {
		m.events = newRing(all.Events[0].Seq-1, Event.weight)
		for _, e := range all.Events {
			m.events.publish(func(uint64) Event { return e })
		}
	}
	for _, name := range all.Lost {
		m.lost[name] = true
	}
	return nil
}

// Begin goes on where the other daemon has stopped.
func (m *Manager) Begin() {
	m.turn()
	m.tend()
	m.poke()
	m.log.Info("goes on where the daemon before has stopped", "listeners", m.Len())
}
