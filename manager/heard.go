package manager

import "context"

// maxHeard bounds how many events wait for the keeper: of more, the last states
// are in the status anyway.
const maxHeard = 4096

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
