package manager

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

type watchedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *watchedLog) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watchedLog) has(word string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.text.String(), word)
}

func blockTheLoop(release <-chan struct{}) { <-release }

// A turn that does not end is told of, with where it is, once; the service
// manager's watchdog is not fed meanwhile, and is again when the loop turns.
func TestWatchdog(t *testing.T) {
	log := &watchedLog{}
	m, err := New(Config{Poller: "epoll", Log: hclog.New(&hclog.LoggerOptions{Output: log})})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Shutdown(context.Background(), 0)
	fed := make(chan struct{})
	stop := make(chan struct{})
	m.Watch(Watchdog{Every: 5 * time.Millisecond, Alive: func() {
		select {
		case fed <- struct{}{}:
		case <-stop:
		}
	}})
	<-fed
	<-fed
	release := make(chan struct{})
	if err := m.loop.Post(func() { blockTheLoop(release) }); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	fedMeanwhile := 0
	for !log.has("does not turn") {
		select {
		case <-fed: // begun before the loop was held up
			fedMeanwhile++
		case <-tick.C:
		}
	}
	if fedMeanwhile > 2 || !log.has("blockTheLoop") {
		t.Errorf("it was fed %d times; logged: %s", fedMeanwhile, &log.text)
	}
	close(release)
	<-fed
	if !log.has("turns again") {
		t.Error("it is not told that the loop turns again")
	}
	close(stop)
}
