package manager

import (
	"context"
	"fmt"
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
	return m.names.len()
}

// List returns up to most listeners whose names come after the one given, in
// order of their names. It reads a bounded number in one turn of the loop.
func (m *Manager) List(ctx context.Context, after string, most int, full bool) (infos []Info, err error) {
	err = m.Walk(ctx, after, most, full, func(i *Info) { infos = append(infos, *i) })
	return infos, err
}

// Walk is List that passes them on one by one. What it points to is another's once
// f returns: all that there are take the memory of one turn's.
func (m *Manager) Walk(ctx context.Context, after string, most int, full bool, f func(*Info)) error {
	g := glance{full: full}
	return m.lookAll(ctx, &g, after, most, func() {
		for i := range g.infos {
			f(&g.infos[i])
		}
	})
}

// entriesAfter adds up to most entries whose names come after the one given to some.
func (m *Manager) entriesAfter(some []*entry, after string, most int) []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names.after(some, after, most)
}

// info reads one entry, whatever becomes of the caller.
func (m *Manager) info(e *entry) Info {
	return m.infos(context.Background(), []*entry{e}, false)[0]
}

// infos reads entries, in one turn.
func (m *Manager) infos(ctx context.Context, entries []*entry, full bool) []Info {
	g := glance{full: full}
	m.look(ctx, &g, entries)
	return g.infos
}

// lastInfo is info of an entry that the loop has nothing to do with any more. The
// caller holds the lock of its name.
func (m *Manager) lastInfo(e *entry) *Info {
	var g glance
	m.known(&g, []*entry{e})
	g.infos[0].Stats = g.stats[0].Stats
	g.infos[0].noteTries()
	return &g.infos[0]
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
