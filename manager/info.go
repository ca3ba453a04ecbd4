package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sockmgr/sockmgr/listeners"
)

// listBudget is how many listeners are read from the kernel in one turn.
const listBudget = 128

// Get returns the named listener; full reads its sockets too.
func (m *Manager) Get(ctx context.Context, name string, full bool) (Info, error) {
	e, err := m.entry(name)
	if err != nil {
		return Info{}, err
	}
	infos := m.infos(ctx, []*entry{e}, full)
	return infos[0], ctx.Err()
}

// Len is how many listeners there are.
func (m *Manager) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.names)
}

// List returns up to most listeners whose names come after the one given, in
// order of their names. It reads a bounded number in one turn of the loop.
func (m *Manager) List(ctx context.Context, after string, most int, full bool) ([]Info, error) {
	some := m.entriesAfter(after, most)
	infos := make([]Info, 0, len(some))
	for chunk := range slices.Chunk(some, listBudget) {
		infos = append(infos, m.infos(ctx, chunk, full)...)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// entriesAfter returns up to most entries whose names come after the one given.
func (m *Manager) entriesAfter(after string, most int) []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, found := slices.BinarySearch(m.names, after)
	if found {
		at++
	}
	some := make([]*entry, 0, min(most, len(m.names)-at))
	for _, name := range m.names[at:min(at+most, len(m.names))] {
		some = append(some, m.entries[name])
	}
	return some
}

// info reads one entry, whatever becomes of the caller.
func (m *Manager) info(e *entry) Info {
	return m.infos(context.Background(), []*entry{e}, false)[0]
}

// infos reads entries, in one turn.
func (m *Manager) infos(ctx context.Context, entries []*entry, full bool) []Info {
	return m.look(ctx, entries, full, func(int, *listeners.Counters) {}, func(int, *listeners.Listener) {})
}

// look is infos, and calls also on the loop for each, and beside on the other loops
// for what they have of each.
func (m *Manager) look(ctx context.Context, entries []*entry, full bool, also func(int, *listeners.Counters), beside func(int, *listeners.Listener)) []Info {
	infos := make([]Info, len(entries))
	lives := make([]*listeners.Listener, len(entries))
	stats := make([]*listeners.Counters, len(entries))
	m.mu.Lock()
	for i, e := range entries {
		infos[i] = Info{Record: e.record, Started: e.started, Retry: e.retry, State: Stopped}
		lives[i], stats[i] = e.live, e.stats
		if e.failure != nil {
			infos[i].State, infos[i].Message = Failed, e.failure.Error()
		}
		if e.deleting {
			infos[i].Message = "being deleted"
		}
	}
	m.noteTriesLocked(infos)
	m.mu.Unlock()
	shards := make([][]*listeners.Listener, len(entries))
	_ = m.on(ctx, func() error { // when the loop has ended, nothing is live
		for i := range infos {
			infos[i].Stats = stats[i].Stats
			also(i, stats[i])
			if lives[i] != nil {
				infos[i].live(lives[i].Status(full))
				shards[i] = lives[i].Shards()
			}
			infos[i].noteFaults()
			infos[i].noteTries()
		}
		return nil
	})
	_ = m.eachShard(ctx, shards, func(i int, sh *listeners.Listener) { // as above
		infos[i].Stats.Add(sh.Counted())
		infos[i].Live.Stats.Add(sh.Counted())
		beside(i, sh)
	})
	return infos
}

// noteFaults adds to the message that traffic is made bad on purpose.
func (i *Info) noteFaults() {
	if i.Live.Faults == "" {
		return
	}
	if i.Message != "" {
		i.Message += "; "
	}
	i.Message += "faults are on: " + i.Live.Faults
}

// noteTries adds to the message what is tried.
func (i *Info) noteTries() {
	if len(i.tries) == 0 {
		return
	}
	if i.Message != "" {
		i.Message += "; "
	}
	i.Message += strings.Join(i.tries, "; ")
}

// live adds what the loop knows.
func (i *Info) live(st listeners.Status) {
	i.Live = st
	switch st.State {
	case listeners.Running:
		i.State = Running
		if st.Program > 0 {
			i.Message = fmt.Sprintf("process %d has the sockets", st.Program)
		}
		if st.Starved {
			i.State, i.Message = Limited, "the daemon has no descriptor left to accept with; further connections wait in the kernel"
		}
	case listeners.Limited:
		i.State, i.Message = Limited, st.Limit+"; further connections wait in the kernel"
		if st.ByRate {
			i.Message = "accept_rate is reached; further connections wait in the kernel"
		}
	case listeners.Paused:
		i.State, i.Message = Paused, pauseWords[st.Paused]
		if !st.Drain.Began.IsZero() {
			i.Message = drainedText(st.Drain) + "; " + i.Message
		}
	case listeners.Draining:
		i.State = Draining
		switch {
		case i.Desired == WantPaused:
			i.Message = "connections finish, then it is paused; " + pauseWords[st.Paused]
		case i.Message == "":
			i.Message = "connections finish"
		}
	default: // about to run, or closed: Stopped, as it was
	}
}

// pauseWords say what clients meet.
var pauseWords = map[listeners.PauseMode]string{
	listeners.Hold:   "clients wait in the kernel to be accepted (hold)",
	listeners.Stall:  "what clients begin with is dropped, so that they try again (stall)",
	listeners.Refuse: "clients are refused (refuse)",
}

func drainedText(d listeners.DrainStatus) string {
	switch d.Cut {
	case 0:
		return "drained: no connection is left"
	case 1:
		return "drained: one connection was closed when its time was over"
	default:
		return fmt.Sprintf("drained: %d connections were closed when their time was over", d.Cut)
	}
}
