package manager

import (
	"context"
	"slices"

	"github.com/sockmgr/sockmgr/listeners"
)

// nameLock is the change lock of one name.
type nameLock struct { // guarded by Manager.mu
	users int           // who has it, and who waits for it; 0: forgotten
	turn  chan struct{} // of size 1: it is free for one who waits; nil: nobody ever has
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
	if len(names) > 1 {
		names = slices.Clone(names)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	locks := make([]nameLock, len(names))
	have := 0
	release = func() {
		for _, name := range names[:have] {
			m.unlock(name)
		}
		m.life.RUnlock()
	}
	for i, name := range names {
		if err := m.lock(ctx, name, &locks[i]); err != nil {
			release()
			return nil, err
		}
		have++
	}
	return release, nil
}

// lock takes the lock of a name, which is to be fresh if there is none.
func (m *Manager) lock(ctx context.Context, name string, fresh *nameLock) error {
	m.mu.Lock()
	lock := m.locks[name]
	if lock == nil {
		fresh.users = 1
		m.locks[name] = fresh
		m.mu.Unlock()
		return nil
	}
	lock.users++
	if lock.turn == nil {
		lock.turn = make(chan struct{}, 1)
	}
	m.mu.Unlock()
	select {
	case <-lock.turn:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if lock.users--; lock.users == 0 { // it was freed for this one just now
		delete(m.locks, name)
	}
	return ctx.Err()
}

func (m *Manager) unlock(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lock := m.locks[name]
	if lock.users--; lock.users == 0 {
		delete(m.locks, name)
		return
	}
	lock.turn <- struct{}{} // never waits: who has the lock has taken what was in it
}
