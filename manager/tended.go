package manager

// tendLocked has those look after an entry that go by all that need it, now and
// then or whenever something has changed: there may be a million that do not. It is
// called whenever failure or record change. m.mu is held.
func (m *Manager) tendLocked(e *entry) {
	if e.failure != nil || !e.record.ResumeAt.IsZero() || e.record.Spec.TLS != nil {
		m.tended[e] = true
	} else {
		delete(m.tended, e)
	}
}
