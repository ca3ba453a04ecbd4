package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
	"github.com/sockmgr/sockmgr/sockets"
)

// Config is what New needs.
type Config struct {
	Poller      string             // epoll, poll or select
	Loops       int                // that serve connections; 0: one
	StateDir    string             // empty: keep nothing
	Descriptors int                // most that listeners and connections may use; 0: no limit
	Programs    listeners.Programs // that the exec handler may run
	Kept        *listeners.Kept    // has copies of the sockets; nil: nobody has
	WriteBuffer int64              // most bytes that are kept for all peers together that do not read; 0: no limit
	Metadata    bool               // addresses of cloud metadata may be connected to
	Reserved    func(string) bool  // Unix sockets that nothing is sent to for others; nil: none
	Log         hclog.Logger
	LoopLog     hclog.Logger // for what happens on the loop; nil: Log
}

// A Manager owns the loop, the store and the set of listeners.
type Manager struct {
	log   hclog.Logger
	began time.Time // when it was made: what rates go by
	loop  *mux.Loop
	set   *listeners.Set // loop only
	loops []*mux.Loop    // all: loop is the first
	sets  []*listeners.Set
	kept  *listeners.Kept
	store *store

	sockets *sockets.Table // of clients

	programs listeners.Programs // that may be run; set once in New

	changes *ring[Change]
	events  *ring[logged]
	feed    *connFeed // loop only; nil while nobody watches connections

	loopEnded chan struct{}  // closed when the loop has
	loopErr   error          // why; set before
	workers   sync.WaitGroup // the other loops
	workerErr chan error     // of size 1: why one of them has ended by itself
	keeper    sync.WaitGroup // the goroutines in keep.go, lookout.go and tls.go
	wake      chan struct{}  // of size 1: something for the keeper to do
	ending    chan struct{}  // closed when Shutdown begins

	life    sync.RWMutex // held for reading by every change; for writing to end them
	closing bool         // guarded by life
	left    bool         // loop only: all is another process's: see HandOver
	handed  atomic.Bool  // the same, for goroutines

	mu       sync.Mutex // guards the rest; never held across a call that waits
	entries  map[string]*entry
	names    roster                       // of entries
	attached map[*listeners.Listener]bool // on the loop, closed ones not told yet included
	locks    map[string]*nameLock
	loopPast []loopHistory   // of each loop
	fresh    []*entry        // began to run: for the lookout
	tended   map[*entry]bool // that goroutines beside the loop look after: see tendLocked
	tries    map[string]*try // by id

	changedMu sync.Mutex        // the loop takes it: never held for longer than an append
	changed   []changedListener // for the keeper
	heard     []Event           // what the loop has to tell, for the keeper
	lost      map[string]bool   // listeners with sockets that were shut from outside

	addressCame atomic.Bool // the host has another address
}

// entry is one listener. Its fields are guarded by Manager.mu, and changed
// only by who holds the lock of the name, or by the keeper.
type entry struct {
	record   *Record             // not changed once it is here: another takes its place
	live     *listeners.Listener // nil: not on the loop
	stats    *listeners.Counters // loop only
	stopping bool                // live drains, or is closed and not told yet
	cause    Cause               // who changed it last
	told     State               // by the keeper, which alone touches it
	deleting bool                // goes when live is closed
	started  time.Time           // when it last began to run
	failure  error               // why it does not run, though it should
	retry    time.Time           // when it is tried again; zero: not
	backoff  time.Duration       // between the last two tries
	seen     seen                // by the lookout, which alone touches it
	past     *history            // nil: quiet for a minute
	lastRead reading             // of its counters
}

// newEntry is one of a listener that is to be made, and its counters.
func newEntry() *entry {
	both := new(struct {
		entry entry
		stats listeners.Counters
	})
	both.entry.stats = &both.stats
	return &both.entry
}

// A State is what a listener is doing, as clients see it.
type State uint8

// The states.
const (
	Running  State = iota + 1
	Limited        // accepts no more until a connection ends
	Paused         // bound, and accepts nothing
	Draining       // accepts nothing; connections finish
	Stopped
	Failed // should run and cannot
)

// Info is a copy of what is wanted and what is. It does not change.
type Info struct {
	*Record // not to be changed
	State   State
	Message string           // on why it is so
	Live    listeners.Status // zero when it is not on the loop
	Stats   listeners.Stats
	Started time.Time // when it last began to run
	Retry   time.Time // when it is tried again
	tries   []string  // what is tried on it: added to Message
}

// New opens the store, starts the loop and runs what was running before.
func New(c Config) (*Manager, error) {
	p, err := mux.NewPoller(c.Poller)
	if err != nil {
		return nil, err
	}
	loop, err := mux.NewLoop(p)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	m, records, err := newOn(loop, c)
	if err != nil {
		return nil, errors.Join(err, loop.Close())
	}
	m.turn()
	m.restore(records)
	m.tend()
	return m, nil
}

// newOn returns a Manager that does nothing yet.
func newOn(loop *mux.Loop, c Config) (*Manager, []Record, error) {
	st, records, err := openStore(c.StateDir)
	if err != nil {
		return nil, nil, err
	}
	m := &Manager{
		log: c.Log, began: time.Now(), loop: loop, store: st, programs: c.Programs, kept: c.Kept, changes: newRing(0, Change.weight), events: newRing(uint64(time.Now().UnixMicro()), logged.weight), loopEnded: make(chan struct{}), workerErr: make(chan error, 1), wake: make(chan struct{}, 1), ending: make(chan struct{}),
		entries: map[string]*entry{}, attached: map[*listeners.Listener]bool{}, locks: map[string]*nameLock{}, tries: map[string]*try{}, lost: map[string]bool{}, tended: map[*entry]bool{},
	}
	loopLog := c.LoopLog
	if loopLog == nil {
		loopLog = c.Log
	}
	m.set = listeners.NewSet(listeners.SetConfig{
		Loop: loop, Log: loopLog, Descriptors: c.Descriptors, Changed: m.onChange, Upstream: m.onUpstream, Failing: m.onFailing, Panicked: m.onPanicked, WriteBuffer: c.WriteBuffer, Slow: m.onSlow, Starved: m.onStarved, Lost: m.onLost, Metadata: c.Metadata, Reserved: c.Reserved, Resolve: m.programs.Resolve, Kept: c.Kept,
	})
	if err := m.addLoops(c); err != nil {
		return nil, nil, errors.Join(err, st.close())
	}
	m.sockets = sockets.New(sockets.Config{Loop: loop, Set: m.set, Log: loopLog, Beside: m.beside()})
	return m, records, nil
}

// tend starts what goes on beside the loop.
func (m *Manager) tend() {
	m.keeper.Go(m.keep)
	m.keeper.Go(m.lookOut)
	m.keeper.Go(m.watchCertificates)
	m.keepAddresses()
}

// Shutdown refuses further changes, gives open connections the time to finish,
// SpecDrain for what their listeners' specs say, and stops everything. What was running runs again at the next start. When
// ctx ends first, what is open is closed at once.
func (m *Manager) Shutdown(ctx context.Context, drain time.Duration) error {
	m.life.Lock()
	if m.closing {
		m.life.Unlock()
		return listeners.DaemonDraining
	}
	m.closing = true
	m.life.Unlock()
	m.kept.End()
	return m.finish(ctx, drain)
}

// finish lets go of everything.
func (m *Manager) finish(ctx context.Context, drain time.Duration) error {
	close(m.ending)
	m.stopAll(drain)
	for more := m.changes.wait(); !m.allClosed(); more = m.changes.wait() { // asked for before it is looked: nothing is missed
		select {
		case <-ctx.Done():
			m.stopAll(0)
			ctx = context.WithoutCancel(ctx) // ends soon now: nothing is waited for any more
		case <-more:
		}
	}
	m.sockets.Close()
	m.loop.Stop()
	<-m.loopEnded
	errLoops := m.endWorkers()
	m.set.Close()
	m.kept.Close()
	m.changes.close()
	m.events.close()
	if m.feed != nil { // the loop has ended
		m.feed.ring.close()
	}
	m.poke()
	m.keeper.Wait()
	return errors.Join(m.loopErr, errLoops, m.loop.Close(), m.store.close())
}

func (m *Manager) stopAll(drain time.Duration) {
	m.mu.Lock()
	all := make([]*listeners.Listener, 0, len(m.attached))
	times := make(map[*listeners.Listener]time.Duration, len(m.attached))
	for l := range m.attached {
		all = append(all, l)
		times[l] = max(drain, 0)
		if e := m.entries[l.Name]; e != nil {
			times[l] = e.record.drainTime(drain)
		}
	}
	m.mu.Unlock()
	for chunk := range slices.Chunk(all, 64) { // a budgeted turn each
		_ = m.loop.Post(func() { // fails only when the loop has ended, and all is closed
			for _, l := range chunk {
				l.Stop(times[l])
			}
		})
	}
}

func (m *Manager) allClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.attached) == 0
}

// Broken is closed when the loop has ended: before Shutdown that is a fault
// which nothing can go on after.
func (m *Manager) Broken() <-chan struct{} { return m.loopEnded }

// Poller is the name of the poller in use.
func (m *Manager) Poller() string { return m.loop.Poller() }

// Store says where state is kept: memory, or file:PATH.
func (m *Manager) Store() string { return m.store.String() }

// lookup returns the named entry, or nil.
func (m *Manager) lookup(name string) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries[name]
}

// entry returns the named entry, or a Fault.
func (m *Manager) entry(name string) (*entry, error) {
	if e := m.lookup(name); e != nil {
		return e, nil
	}
	return nil, &listeners.Fault{
		Reason: listeners.ListenerNotFound, Message: fmt.Sprintf("there is no listener %q", name),
		Fix: "sockctl ls", Meta: map[string]string{"listener": name},
	}
}

// current is entry for a change: it checks the etag too, and that the listener
// is not about to go.
func (m *Manager) current(name, etag string) (*entry, *Record, error) {
	e, err := m.entry(name)
	if err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case etag != "" && etag != e.record.Etag():
		return nil, nil, &listeners.Fault{
			Reason: listeners.EtagMismatch, Message: fmt.Sprintf("%s was changed by someone else: its etag is %s, not %s", name, e.record.Etag(), etag),
			Fix: "read it again and repeat the change", Meta: map[string]string{"etag": e.record.Etag()},
		}
	case e.deleting:
		return nil, nil, &listeners.Fault{
			Reason: listeners.StateInvalid, Message: name + " is being deleted: its connections finish",
			Fix: "sockctl rm --now " + name,
		}
	}
	return e, e.record, nil
}

// insertLocked adds entries. m.mu is held.
func (m *Manager) insertLocked(some ...*entry) {
	for _, e := range some {
		m.entries[e.record.Name] = e
		m.names.add(e.record.Name, e)
		m.tendLocked(e)
	}
}

// drop takes an entry out.
func (m *Manager) drop(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetLocked(name)
}

// forgetLocked is drop. m.mu is held.
func (m *Manager) forgetLocked(name string) {
	delete(m.tended, m.entries[name])
	delete(m.entries, name)
	m.names.remove(name)
}

// with reads or changes an entry under the lock.
func (m *Manager) with(e *entry, f func(*entry)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(e)
}

// on runs f on the loop.
func (m *Manager) on(ctx context.Context, f func() error) error {
	err := m.loop.Do(ctx, func() error {
		if m.left {
			return handedOver()
		}
		return f()
	})
	if errors.Is(err, mux.ErrClosed) {
		return &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is shutting down", Err: err}
	}
	return err
}
