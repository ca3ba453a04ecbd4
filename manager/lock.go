package manager

import (
	"context"
	"slices"

	"github.com/sockmgr/sockmgr/listeners"
)

// nameLock is the change lock of one name.
type nameLock struct {
	held  chan struct{} // of size 1
	users int           // guarded by Manager.mu; 0: forgotten
}

// change begins a change of the named listeners, which need not be there.
// Nobody else changes them until release is called. Several names are locked in
// their order, so that two changes never wait for each other.
func (m *Manager) change(ctx context.Context, names ...string) (release func(), err error) {
	m.life.RLock()
	if m.closing {
		m.life.RUnlock()
		if err := m.HandedOver(); err != nil {
			return nil, err
		}
		return nil, &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is shutting down", Fix: "try again once it is back"}
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(names)))
	var have []string
	release = func() {
		for _, name := range have {
			m.unlock(name)
		}
		m.life.RUnlock()
	}
	for _, name := range sorted {
		if err := m.lock(ctx, name); err != nil {
			release()
			return nil, err
		}
		have = append(have, name)
	}
	return release, nil
}

func (m *Manager) lock(ctx context.Context, name string) error {
	m.mu.Lock()
	lock := m.locks[name]
	if lock == nil {
		lock = &nameLock{held: make(chan struct{}, 1)}
		m.locks[name] = lock
	}
	lock.users++
	m.mu.Unlock()
	select {
	case lock.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		m.leave(name, lock)
		return ctx.Err()
	}
}

func (m *Manager) unlock(name string) {
	m.mu.Lock()
	lock := m.locks[name]
	m.mu.Unlock()
	<-lock.held
	m.leave(name, lock)
}

func (m *Manager) leave(name string, lock *nameLock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lock.users--; lock.users == 0 {
		delete(m.locks, name)
	}
}
