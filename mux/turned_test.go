package mux_test

import (
	"testing"

	"github.com/sockmgr/sockmgr/mux"
)

// Who asks what a loop has done wakes none that sleeps: after it was looked at, it
// has turned only once something happens.
func TestTurned(t *testing.T) {
	eachPoller(t, func(t *testing.T, l *mux.Loop) {
		start(t, l)
		look := func() (turns uint64) {
			t.Helper()
			if err := l.Do(t.Context(), func() error { turns = l.Stats().Turns; l.Looked(); return nil }); err != nil {
				t.Fatal(err)
			}
			return turns
		}
		turns := look()
		for n := 0; l.Turned(); n++ { // one that was busy may turn once more
			if n > 100 {
				t.Fatal("it turns and turns")
			}
			turns = look()
		}
		if err := l.Do(t.Context(), func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if !l.Turned() {
			t.Error("it has not turned, and has run a func")
		}
		if now := look(); now <= turns {
			t.Errorf("%d turns after %d", now, turns)
		}
	})
}
