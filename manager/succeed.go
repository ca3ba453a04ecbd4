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

// A Takeover is how a Manager that is prepared takes up what another leaves, part
// by part. Nothing happens before Begin; if it is not to be called, the process is
// to end.
type Takeover struct {
	m *Manager
	r *listeners.Resumption
}

// Takeover begins one.
func (m *Manager) Takeover() *Takeover { return &Takeover{m, m.set.Resume(m.kept)} }

// TakeUp makes a part m's, with the descriptors that came with it.
func (t *Takeover) TakeUp(part *Estate, files []int) error {
	m := t.m
	if err := t.r.TakeUp(&part.Saved, files); err != nil {
		return err
	}
	if err := m.sockets.Resume(part.Sockets, t.r); err != nil {
		return err
	}
	for i := range part.Entries {
		if err := t.entry(&part.Entries[i]); err != nil {
			return fmt.Errorf("listener %s: %w", part.Entries[i].Name, err)
		}
	}
	if m.store.path == "" && part.Revision > 0 {
		m.store.revision.Store(part.Revision)
	}
	if n := len(part.Events); n > 0 {
		m.events = newRing(part.Events[0].Seq-1, logged.weight)
		for _, e := range part.Events {
			m.events.publish(func(seq uint64) logged { return logged{seq: seq, time: e.Time, cause: e.Cause, event: &e} })
		}
	}
	for _, name := range part.Lost {
		m.lost[name] = true
	}
	return nil
}

// Finish is for when all parts were taken up.
func (t *Takeover) Finish() error { return t.r.Finish() }

func (t *Takeover) entry(s *SavedEntry) error {
	record, err := decodeRecord([]byte(s.Name), s.Record)
	if err != nil {
		return err
	}
	e := &entry{record: &record, stats: &listeners.Counters{}, started: s.Started, cause: s.Cause, retry: s.Retry, backoff: s.Backoff}
	if s.Failure != "" {
		e.failure = errors.New(s.Failure)
	}
	if s.Counters != nil {
		e.stats = s.Counters
	}
	if s.Live {
		if e.live, e.stats = t.r.Listeners[s.Name], t.r.Counters[s.Name]; e.live == nil {
			return errors.New("it came without its sockets")
		}
		t.m.attached[e.live] = true
		t.m.fresh = append(t.m.fresh, e)
	}
	e.lastRead = readingOf(0, e.stats) // what it has counted there is no rate here
	t.m.insertLocked(e)                // nobody else knows of m yet
	return nil
}

// Begin goes on where the other daemon has stopped.
func (m *Manager) Begin() {
	m.turn()
	m.tend()
	_ = m.loop.Post(func() { m.set.SendOut(true) }) // the loop runs
	m.poke()
	m.log.Info("goes on where the daemon before has stopped", "listeners", m.Len())
}
