package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
	"github.com/sockmgr/sockmgr/sockets"
)

// MaxLoops bounds how many loops there are.
const MaxLoops = 64

// addLoops makes the loops beside the first one: see listeners.Set.AddWorker.
func (m *Manager) addLoops(c Config) error {
	m.loops, m.sets = []*mux.Loop{m.loop}, []*listeners.Set{m.set}
	for len(m.loops) < c.Loops {
		loop, err := m.newLoop(c.Poller)
		if err != nil {
			for i, l := range m.loops[1:] {
				m.sets[i+1].Close()
				err = errors.Join(err, l.Close())
			}
			return fmt.Errorf("loop %d: %w", len(m.loops), err)
		}
		m.loops, m.sets = append(m.loops, loop), append(m.sets, m.set.AddWorker(loop))
	}
	m.loopPast = make([]loopHistory, len(m.loops))
	return nil
}

func (m *Manager) newLoop(poller string) (*mux.Loop, error) {
	p, err := mux.NewPoller(poller)
	if err != nil {
		return nil, err
	}
	loop, err := m.loop.Beside(p)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return loop, nil
}

// turn starts the loops.
func (m *Manager) turn() {
	for _, l := range m.loops[1:] {
		m.workers.Go(func() {
			if err := l.Run(); err != nil {
				select {
				case m.workerErr <- err:
				default: // one is enough
				}
				m.loop.Stop() // nothing can go on after that
			}
		})
	}
	go func() {
		m.loopErr = m.loop.Run()
		close(m.loopEnded)
	}()
}

// endWorkers ends the loops beside the first one, which has ended.
func (m *Manager) endWorkers() (err error) {
	for _, l := range m.loops[1:] {
		l.Stop()
	}
	m.workers.Wait()
	select {
	case err = <-m.workerErr:
	default:
	}
	for i, l := range m.loops[1:] {
		m.sets[i+1].Close()
		err = errors.Join(err, l.Close())
	}
	return err
}

// onLoop runs f on the numbered loop.
func (m *Manager) onLoop(ctx context.Context, number int, f func() error) error {
	if number == 0 {
		return m.on(ctx, f)
	}
	err := m.loops[number].Do(ctx, func() error {
		if m.handed.Load() {
			return handedOver()
		}
		return f()
	})
	if errors.Is(err, mux.ErrClosed) {
		return &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is shutting down", Err: err}
	}
	return err
}

// settled returns once the other loops have heard what the first one has told them,
// and the first what they had to say to that: so a change is in force everywhere
// when who made it goes on. It gives up with ctx.
func (m *Manager) settled(ctx context.Context) error {
	if len(m.loops) == 1 {
		return nil
	}
	for number := range m.loops {
		if err := m.onLoop(ctx, len(m.loops)-1-number, func() error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// A walk through the descriptors of all loops goes from one to the next. Where it
// is, is a number: that of the loop, and the descriptor.
const walkShift = 26 // descriptors are below 2^26

// walk calls f on a loop with a descriptor, until f, which returns the one to go on
// from, or -1 at the end of that loop, is done with all or enough says so. It
// returns where to go on from; -1 at the end.
func (m *Manager) walk(ctx context.Context, at int, enough func() bool, f func(set *listeners.Set, from int) (next int)) (int, error) {
	for at >= 0 && !enough() {
		number, next := at>>walkShift, 0
		if number >= len(m.loops) {
			return -1, nil // a token of a daemon that had more
		}
		if err := m.onLoop(ctx, number, func() error {
			next = f(m.sets[number], at&(1<<walkShift-1))
			return nil
		}); err != nil {
			return 0, err
		}
		at = m.past(number, next)
	}
	return at, nil
}

// past is where a walk goes on that is at a descriptor of a loop, or at its end.
func (m *Manager) past(number, next int) int {
	switch {
	case next >= 0:
		return number<<walkShift | next
	case number+1 < len(m.loops):
		return (number + 1) << walkShift
	default:
		return -1
	}
}

// through is a walk through all.
func (m *Manager) through(ctx context.Context, f func(set *listeners.Set, from int) (next int)) error {
	_, err := m.walk(ctx, 0, func() bool { return false }, f)
	return err
}

// at calls f on the loop that has a connection. One that is not where it was seen
// may have moved, and is looked for on the others: no connection moves twice, but
// at an upgrade that fails.
func (m *Manager) at(ctx context.Context, ref connRef, f func(set *listeners.Set) (found bool)) (found bool, err error) {
	for _, number := range m.beginningWith(ref.loop) {
		err = m.onLoop(ctx, number, func() error { found = f(m.sets[number]); return nil })
		if found || err != nil {
			break
		}
	}
	return found, err
}

// beginningWith lists the loops.
func (m *Manager) beginningWith(first int) []int {
	all := make([]int, 0, len(m.loops))
	all = append(all, first)
	for number := range m.loops {
		if number != first {
			all = append(all, number)
		}
	}
	return all
}

// atEach is at for several connections: f is called for each, until it says that it
// has found it.
func (m *Manager) atEach(ctx context.Context, conns []listeners.ConnStatus, f func(set *listeners.Set, c *listeners.ConnStatus) (found bool)) error {
	left := make([]*listeners.ConnStatus, len(conns))
	for i := range conns {
		left[i] = &conns[i]
	}
	on := func(number int, hinted bool) error {
		if !slices.ContainsFunc(left, func(c *listeners.ConnStatus) bool { return !hinted || c.Loop == number }) {
			return nil
		}
		return m.onLoop(ctx, number, func() error {
			left = slices.DeleteFunc(left, func(c *listeners.ConnStatus) bool {
				return (!hinted || c.Loop == number) && f(m.sets[number], c)
			})
			return nil
		})
	}
	for _, hinted := range []bool{true, false} {
		if !hinted && len(m.loops) == 1 {
			break
		}
		for number := range m.loops {
			if err := on(number, hinted); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachShard calls f on their loops for what other loops have of listeners; i is the
// place of the listener.
func (m *Manager) eachShard(ctx context.Context, of [][]*listeners.Listener, f func(i int, shard *listeners.Listener)) error {
	for number := 1; number < len(m.loops); number++ {
		has := func(shards []*listeners.Listener) bool { return number <= len(shards) && shards[number-1] != nil }
		if !slices.ContainsFunc(of, has) {
			continue
		}
		if err := m.onLoop(ctx, number, func() error {
			for i, shards := range of {
				if has(shards) {
					f(i, shards[number-1])
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// callHome has the first loop serve all connections, and returns what lets the
// others have some again.
func (m *Manager) callHome(ctx context.Context) (sendOut func(), err error) {
	sendOut = func() {
		_ = m.loop.Post(func() { m.set.SendOut(false) }) // ended: all is closed
	}
	if len(m.loops) == 1 {
		return sendOut, nil
	}
	home := make(chan struct{})
	if err := m.on(ctx, func() error { m.set.CallHome(func() { close(home) }); return nil }); err != nil {
		return sendOut, err
	}
	select {
	case <-home:
		return sendOut, nil
	case <-ctx.Done():
		sendOut()
		return sendOut, ctx.Err()
	case <-m.loopEnded:
		return sendOut, m.loopErr
	}
}

// postRound has f called once every loop has turned.
func (m *Manager) postRound(f func()) error {
	left := new(atomic.Int32)
	left.Store(int32(len(m.loops)))
	for _, l := range m.loops {
		if err := l.Post(func() {
			if left.Add(-1) == 0 {
				f()
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// beside are the loops that sockets have their connections looked for on as well.
func (m *Manager) beside() (all []sockets.Beside) {
	for i, loop := range m.loops[1:] {
		all = append(all, sockets.Beside{Loop: loop, Set: m.sets[i+1]})
	}
	return all
}
