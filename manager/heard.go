package manager

import "context"

// maxHeard bounds how many events wait for the keeper: of more, the last states
// are in the status anyway.
const maxHeard = 4096

// hear leaves word of an event for the keeper: it is called on the loop, which
// never waits.
func (m *Manager) hear(e Event) {
	m.changedMu.Lock()
	if len(m.heard) < maxHeard {
		m.heard = append(m.heard, e)
	}
	m.changedMu.Unlock()
	m.poke()
}

// tellHeard adds what the loop has left word of.
func (m *Manager) tellHeard() {
	m.changedMu.Lock()
	heard := m.heard
	m.heard = nil
	m.changedMu.Unlock()
	for _, e := range heard {
		m.tell(context.Background(), e)
	}
}
