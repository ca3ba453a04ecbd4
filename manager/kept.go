package manager

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// keptPatience bounds what a change waits for who has the copies of its sockets.
const keptPatience = 2 * time.Second

// settleKept returns when the keeper has what was bound and has let go of what
// was closed. It never lets a change fail: the daemon has the sockets.
func (m *Manager) settleKept(ctx context.Context) {
	if !m.kept.Used() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keptPatience)
	defer cancel()
	if err := m.kept.Wait(ctx); err != nil {
		m.log.Warn("who keeps copies of the sockets does not answer; the change is made", "error", err)
	}
}

// dropBefore lets go of sockets that came back and whose listeners are not there
// any more, or are not to run: their addresses may be another's now.
func (m *Manager) dropBefore(records []Record) {
	run := make(map[string]bool, len(records))
	for _, r := range records {
		run[r.Name] = r.Desired != WantStopped
	}
	m.dropKept(func(name string) bool { return run[name] })
}

// dropUnused lets go of sockets that came back and that no listener is still to
// ask for: those of listeners that cannot run yet wait with them.
func (m *Manager) dropUnused() {
	m.dropKept(func(name string) bool {
		e, err := m.entry(name)
		waits := false
		if err == nil {
			m.with(e, func(e *entry) { waits = e.failure != nil && e.record.Desired != WantStopped })
		}
		return waits
	})
}

func (m *Manager) dropKept(wanted func(name string) bool) {
	for _, what := range m.kept.Drop(wanted) {
		m.log.Warn("a socket that came back is closed: no listener is saved that has it", "socket", what)
	}
}

// recoverConns goes on with connections that came back, of the listeners that run.
func (m *Manager) recoverConns() {
	m.mu.Lock()
	all := make(map[string]*listeners.Listener, len(m.attached))
	for l := range m.attached {
		all[l.Name] = l
	}
	m.mu.Unlock()
	if err := m.on(context.Background(), func() error { m.set.Recover(all); return nil }); err != nil {
		m.log.Error("connections that came back are lost", "error", err)
	}
}

// storePerTurn bounds how many listeners one turn of the loop copies sockets of.
const storePerTurn = 16

// StoreAgain begins to leave all sockets with a keeper that has nothing yet.
func (m *Manager) StoreAgain(ctx context.Context) error {
	m.mu.Lock()
	all := slices.Collect(maps.Keys(m.attached))
	m.mu.Unlock()
	for chunk := range slices.Chunk(all, storePerTurn) {
		err := m.on(ctx, func() error {
			for _, l := range chunk {
				m.kept.StoreAgain(l)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return m.on(ctx, func() error { m.set.StoreConnsAgain(); return nil })
}
