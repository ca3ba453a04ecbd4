package manager

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// newUntended is a manager with loops that turn, and nobody who looks after it.
func newUntended(t *testing.T, loops int) *Manager {
	t.Helper()
	p, err := mux.NewPoller("epoll")
	if err != nil {
		t.Fatal(err)
	}
	loop, err := mux.NewLoop(p)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := newOn(loop, Config{Loops: loops, Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	m.turn()
	m.keeper.Go(m.keep)
	t.Cleanup(func() {
		if err := m.Shutdown(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
	return m
}

// turns is how often the loops have turned.
func turns(t *testing.T, m *Manager) (n uint64) {
	t.Helper()
	all, err := m.Loops(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		n += all[i].Turns
	}
	return n
}

// However many listeners are idle, the lookout wakes no loop to measure them, and
// for drops the first one once; one that is paused is sampled at each look, as is
// one at which something came, whose rates go on for a minute.
func TestLookoutLeavesIdleOnesAlone(t *testing.T) {
	m := newUntended(t, 3)
	w := newLookout(m)
	var at string
	for i := range 600 {
		info, _, err := m.Create(t.Context(), fmt.Sprintf("l%03d", i), Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: listeners.Echo{}}, false)
		if err != nil {
			t.Fatal(err)
		}
		at = info.Live.Bound[0].IP.String()
	}
	step := func(f func() error) (took uint64) {
		t.Helper()
		before := turns(t, m)
		if err := f(); err != nil {
			t.Fatal(err)
		}
		return turns(t, m) - before - 3 // to count takes one of each
	}
	step(w.measure)
	if len(w.restless) != 600 {
		t.Errorf("%d of 600 are new", len(w.restless))
	}
	step(w.sample)
	if len(w.restless) != 0 || len(w.moving) != 0 {
		t.Errorf("%d are looked at again, %d move", len(w.restless), len(w.moving))
	}
	sleeps := 0 // so often in a row was no loop woken; one that was busy turns once more
	for n := 0; sleeps < 3; n++ {
		if n > 100 {
			t.Fatal("the loops turn and turn, and nothing happens")
		}
		if slices.ContainsFunc(m.loops, (*mux.Loop).Turned) {
			sleeps = 0
		} else {
			sleeps++
		}
		if err := w.measure(); err != nil {
			t.Fatal(err)
		}
	}
	quiet := w.quiet
	if took := step(w.sample); took > 2 || w.quiet == quiet {
		t.Errorf("%d turns for the drops of some; %q after %q", took, w.quiet, quiet)
	}
	for w.quiet != "" { // the last ones
		step(w.sample)
	}
	looks := 1
	for step(w.sample); w.quiet != ""; step(w.sample) {
		looks++
	}
	if looks > 2 {
		t.Errorf("%d looks to ask all 600 for drops", looks)
	}
	if _, err := m.Pause(t.Context(), "l007", "", listeners.Hold, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	paused, busy := m.lookup("l007"), m.lookup("l599")
	step(w.measure)
	if len(w.restless) != 2 || !w.restless[paused] || !w.restless[busy] || len(w.moving) != 1 || !w.moving[busy] {
		t.Errorf("%d are looked at, %d move", len(w.restless), len(w.moving))
	}
	for range 2 {
		step(w.sample)
		if len(w.restless) != 1 || !w.restless[paused] {
			t.Errorf("%d are looked at again", len(w.restless))
		}
	}
	if len(busy.past.rates()) == 0 {
		t.Error("no rate")
	}
	for n := 0; len(w.moving) > 0; n++ {
		if n > 100 {
			t.Fatal("it moves for ever")
		}
		step(w.measure)
	}
	if busy.past != nil || busy.lastRead.accepted != 1 || busy.lastRead.received != 1 {
		t.Errorf("%+v", busy.lastRead)
	}
}

// rates are those that are not zero.
func (h *history) rates() (all []float64) {
	for _, of := range []func(reading) uint64{
		func(r reading) uint64 { return r.accepted }, func(r reading) uint64 { return r.received }, func(r reading) uint64 { return r.sent },
	} {
		if r := h.rate(of); r.Minute > 0 {
			all = append(all, r.Minute)
		}
	}
	return all
}

// What a daemon has counted before an upgrade is no rate of the one after it.
func TestNoRateOfWhatWasTakenOver(t *testing.T) {
	m := newUntended(t, 1)
	record := newRecord("web")
	if _, err := record.apply(Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: listeners.Echo{}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	record.Desired = WantStopped
	text, err := m.store.encode(record)
	if err != nil {
		t.Fatal(err)
	}
	counted := &listeners.Counters{Stats: listeners.Stats{Accepted: 1000, Received: 5000}}
	m.mu.Lock()
	err = (&Takeover{m: m}).entry(&SavedEntry{Name: "web", Record: text, Counters: counted})
	m.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	e := m.lookup("web")
	if err := m.measureSome([]*entry{e}, make([]reading, 1)); err != nil {
		t.Fatal(err)
	}
	if r := e.past.rate(accepted); r.Second != 0 {
		t.Errorf("%v accepted a second, and nothing has come", r.Second)
	}
}

// Only those that need it are looked after: by who tries again, resumes and reads
// certificates.
func TestTended(t *testing.T) {
	m := newUntended(t, 1)
	ctx := t.Context()
	d := Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: listeners.Echo{}}
	for _, name := range []string{"a", "b", "c"} {
		if _, _, err := m.Create(ctx, name, d, false); err != nil {
			t.Fatal(err)
		}
	}
	tended := func() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.tended) }
	if n := tended(); n != 0 {
		t.Errorf("%d of 3 that need nothing", n)
	}
	if _, err := m.Pause(ctx, "b", "", listeners.Hold, time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := tended(); n != 1 {
		t.Errorf("%d, and one is to be resumed", n)
	}
	if _, err := m.Resume(ctx, "b", ""); err != nil {
		t.Fatal(err)
	}
	if n := tended(); n != 0 {
		t.Errorf("%d, and none is paused", n)
	}
	if _, err := m.Pause(ctx, "b", "", listeners.Hold, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Delete(ctx, "b", "", 0, false); err != nil {
		t.Fatal(err)
	}
	if n := tended(); n != 0 {
		t.Errorf("%d, and it was deleted", n)
	}
}
