package manager

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

func (t *try) resource() string {
	if t.conn.cookie != 0 {
		return fmt.Sprintf("connections/%x", t.conn.cookie)
	}
	return "listeners/" + t.name
}

// text is what is tried: backlog=5, idle_timeout=3s.
func (t *try) text() string {
	texts := make([]string, 0, len(t.all))
	for _, w := range t.all {
		texts = append(texts, fmt.Sprintf("%s=%v", w.option.Name, w.value))
	}
	return strings.Join(texts, ", ")
}

func (t *try) attributes() map[string]string {
	return map[string]string{"change_id": t.id, "options": t.text(), "revert_time": t.deadline.UTC().Format(time.RFC3339)}
}

// TriedOn is the listener that a try is on, or has the connection that it is on;
// empty when there is no such try.
func (m *Manager) TriedOn(id string) string {
	if t := m.tryOf(id); t != nil {
		return t.name
	}
	return ""
}

// Tried returns the options of a try with their values.
func (m *Manager) Tried(id string) (map[string]listeners.Value, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tries[id]
	if t == nil {
		return nil, changeGone(id)
	}
	return maps.Collect(t.values()), nil
}

// triedLocked is what is tried on a listener, by option. m.mu is held.
func (m *Manager) triedLocked(name string) map[string]listeners.Value {
	var values map[string]listeners.Value
	for _, t := range m.tries {
		if t.name != name || t.scope == ScopeConnections {
			continue
		}
		if values == nil {
			values = map[string]listeners.Value{}
		}
		maps.Insert(values, t.values())
	}
	return values
}

func (t *try) values() iter.Seq2[string, listeners.Value] {
	return func(yield func(string, listeners.Value) bool) {
		for _, w := range t.all {
			if !yield(w.option.Name, w.value) {
				return
			}
		}
	}
}

// noteTriesLocked says of listeners what is tried on them. m.mu is held.
func (m *Manager) noteTriesLocked(infos []Info) {
	for _, id := range slices.Sorted(maps.Keys(m.tries)) {
		t := m.tries[id]
		for i := range infos {
			if infos[i].Name == t.name && t.conn.cookie == 0 {
				infos[i].tries = append(infos[i].tries, fmt.Sprintf("%s is tried until %s: sockctl tune --confirm %s keeps it",
					t.text(), t.deadline.Format(time.TimeOnly), t.id))
			}
		}
	}
}
