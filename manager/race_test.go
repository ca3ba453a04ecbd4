package manager_test

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// eventually waits for what the keeper does in its own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// A listener whose last connection ends while it is deleted is gone, whoever
// hears of it first.
func TestDeleteWhileItEnds(t *testing.T) {
	m := newManager(t, t.TempDir())
	defer shutdown(t, m)
	for i := range 100 {
		name := fmt.Sprintf("l%d", i)
		info, _, err := m.Create(t.Context(), name, echo("tcp://127.0.0.1:0"), false)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", info.Live.Bound[0].IP.String())
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is not accepted", func() bool {
			info, err := m.Get(t.Context(), name, false)
			return err == nil && info.Live.Active == 1
		})
		if _, err := m.Stop(t.Context(), name, "", time.Hour); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { c.Close() })
		wg.Go(func() {
			if _, err := m.Delete(t.Context(), name, "", time.Hour, false); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		eventually(t, name+" stays", func() bool {
			_, err := m.Get(t.Context(), name, false)
			return errors.Is(err, listeners.ListenerNotFound)
		})
	}
}

// However the last listener closes, Shutdown hears of it.
func TestShutdownHears(t *testing.T) {
	for range 100 {
		m := newManager(t, "")
		if _, _, err := m.Create(t.Context(), "web", echo("tcp://127.0.0.1:0"), false); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- m.Shutdown(t.Context(), 0) }()
		timer := time.NewTimer(20 * time.Second)
		select {
		case err := <-ended:
			timer.Stop()
			if err != nil {
				t.Fatal(err)
			}
		case <-timer.C:
			t.Fatal("Shutdown waits for ever")
		}
	}
}
