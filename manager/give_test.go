package manager_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// Sockets are given of all listeners or of none: one that cannot be given leaves
// the others as they were, running, and no descriptor is left over.
func TestGiveIsAllOrNothing(t *testing.T) {
	m := newManager(t, t.TempDir())
	defer shutdown(t, m)
	ctx := t.Context()
	for _, name := range []string{"a", "b", "paused", "stopped"} {
		if _, _, err := m.Create(ctx, name, echo("tcp://127.0.0.1:0", "udp://127.0.0.1:0"), false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Stop(ctx, "stopped", "", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Pause(ctx, "paused", "", listeners.Refuse, 0); err != nil {
		t.Fatal(err)
	}
	before := map[string]manager.Info{}
	for _, name := range []string{"a", "b", "paused"} {
		before[name] = given(t, m, name)
	}
	fds := countFDs(t)
	for _, names := range [][]string{{"a", "b", "nobody"}, {"a", "stopped", "b"}, {"paused", "a", "nobody"}, {"a", "b", "a"}, {}} {
		if of, files, err := m.Give(ctx, names); err == nil || of != nil || files != nil {
			t.Fatalf("%v: gave %v %v, %v", names, of, files, err)
		}
		for name, was := range before {
			if is := given(t, m, name); is.State != was.State || is.Generation != was.Generation || is.Live.Paused != was.Live.Paused {
				t.Errorf("%v: %s is %v, generation %d; was %v, %d", names, name, is.State, is.Generation, was.State, was.Generation)
			}
		}
	}
	if n := countFDs(t); n != fds {
		t.Errorf("%d descriptors, %d before", n, fds)
	}
	of, files, err := m.Give(ctx, []string{"a", "paused", "b"})
	if err != nil || len(of) != 6 || len(files) != 6 || of[0] != "a" || of[2] != "paused" || of[4] != "b" {
		t.Fatal(of, files, err)
	}
	for _, fd := range files {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
	for name, was := range before {
		if is := given(t, m, name); is.State != manager.Paused || is.Live.Paused != listeners.Hold || is.Generation == was.Generation {
			t.Errorf("%s is %v (%v), generation %d", name, is.State, is.Live.Paused, is.Generation)
		}
	}
	again := given(t, m, "a").Generation
	if _, files, err = m.Give(ctx, []string{"a"}); err != nil || given(t, m, "a").Generation != again {
		t.Error("one that is paused already was changed", err)
	}
	for _, fd := range files {
		_ = unix.Close(fd)
	}
	if _, _, err := m.Give(ctx, []string{"nobody"}); !errors.Is(err, listeners.ListenerNotFound) {
		t.Error(err)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func given(t *testing.T, m *manager.Manager, name string) manager.Info {
	t.Helper()
	info, err := m.Get(t.Context(), name, true)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
