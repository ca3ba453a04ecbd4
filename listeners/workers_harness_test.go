package listeners_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// testLoops is how many loops the tests have: one, unless SOCKMGR_TEST_LOOPS says
// otherwise.
func testLoops(t *testing.T) int {
	t.Helper()
	text := os.Getenv("SOCKMGR_TEST_LOOPS")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// oneLoop is for tests of what one loop does, or takes.
func oneLoop(t *testing.T) {
	t.Helper()
	t.Setenv("SOCKMGR_TEST_LOOPS", "1")
}

// A worker is another loop of a host.
type worker struct {
	loop  *mux.Loop
	set   *listeners.Set
	ended chan error
}

// addWorkers makes the loops that the tests are to have.
func (h *host) addWorkers(poller string) {
	h.t.Helper()
	for range testLoops(h.t) - 1 {
		h.addWorker(poller)
	}
}

func (h *host) addWorker(poller string) {
	h.t.Helper()
	p, err := mux.NewPoller(poller)
	if err != nil {
		h.t.Fatal(err)
	}
	loop, err := h.loop.Beside(p)
	if err != nil {
		h.t.Fatal(err)
	}
	w := worker{loop, h.set.AddWorker(loop), make(chan error, 1)}
	h.workers = append(h.workers, w)
	go func() { w.ended <- loop.Run() }()
}

func (w worker) end() error {
	w.loop.Stop()
	err := <-w.ended
	w.set.Close()
	return errors.Join(err, w.loop.Close())
}

// do runs f on the worker's loop.
func (w worker) do(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.loop.Do(ctx, func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// settle returns once the other loops have done what they were told, and the first
// what came of it.
func (h *host) settle() {
	h.t.Helper()
	for _, w := range h.workers {
		w.do(h.t, func() {})
		h.here(func() {})
	}
}

// eachShard calls f on their loops for the shards.
func (h *host) eachShard(shards []*listeners.Listener, f func(sh *listeners.Listener)) {
	h.t.Helper()
	for i, sh := range shards {
		if sh != nil {
			h.workers[i].do(h.t, func() { f(sh) })
		}
	}
}

// everywhere calls f on every loop.
func (h *host) everywhere(f func(set *listeners.Set)) {
	h.t.Helper()
	h.do(func() { f(h.set) })
	for _, w := range h.workers {
		w.do(h.t, func() { f(w.set) })
	}
}
