package manager_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// wish wants an echo listener with a backlog.
func wish(name string, backlog int64, uris ...string) manager.Wish {
	return manager.Wish{Name: name, Edit: func(d *manager.Draft) error {
		d.Listen, d.Handler = uris, listeners.Echo{}
		d.Options = maps.Clone(d.Options)
		if d.Options == nil {
			d.Options = map[string]listeners.Value{}
		}
		d.Options["backlog"] = listeners.IntValue(backlog)
		return nil
	}}
}

func actions(all []*manager.Applied) (list []manager.Action) {
	for _, a := range all {
		list = append(list, a.Action)
	}
	return list
}

func names(t *testing.T, m *manager.Manager) (list []string) {
	t.Helper()
	infos, err := m.List(t.Context(), "", 1000, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		list = append(list, fmt.Sprintf("%s %d/%d %d", i.Name, i.Generation, i.Live.Queue.AcceptLimit, i.State))
	}
	return list
}

func TestApply(t *testing.T) {
	m := newManager(t, t.TempDir())
	defer shutdown(t, m)
	apply := func(o manager.ApplyOptions, wishes ...manager.Wish) []manager.Action {
		t.Helper()
		all, revision, err := m.Apply(t.Context(), wishes, o)
		if err != nil || revision == 0 && !o.CheckOnly {
			t.Fatalf("apply: revision %d, %v", revision, err)
		}
		return actions(all)
	}
	expect := func(what string, got, want []manager.Action) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: actions %v, want %v", what, got, want)
		}
	}
	mine := manager.ApplyOptions{Owner: "file:a"}
	a, b := wish("a", 10, "tcp://127.0.0.1:0"), wish("b", 20, "tcp://127.0.0.1:0")
	expect("check", apply(manager.ApplyOptions{Owner: "file:a", CheckOnly: true}, a, b), []manager.Action{manager.Created, manager.Created})
	if m.Len() != 0 {
		t.Error("a check made listeners")
	}
	expect("first", apply(mine, a, b), []manager.Action{manager.Created, manager.Created})
	expect("again", apply(mine, a, b), []manager.Action{manager.Unchanged, manager.Unchanged})
	expect("tune", apply(mine, wish("a", 11, "tcp://127.0.0.1:0"), b), []manager.Action{manager.Updated, manager.Unchanged})
	expect("foreign", apply(manager.ApplyOptions{Owner: "file:b"}, a, wish("b", 12, "tcp://127.0.0.1:0")), []manager.Action{manager.NotApplied, manager.NotApplied})
	expect("foreign, the same", apply(manager.ApplyOptions{Owner: "file:b", Prune: true}, wish("a", 11, "tcp://127.0.0.1:0"), b), []manager.Action{manager.Unchanged, manager.Unchanged})
	expect("rebind not allowed", apply(mine, wish("a", 11, "tcp://127.0.0.2:0")), []manager.Action{manager.NotApplied})
	expect("rebind and prune", apply(manager.ApplyOptions{Owner: "file:a", Rebind: true, Prune: true}, wish("a", 11, "tcp://127.0.0.2:0")),
		[]manager.Action{manager.Rebound, manager.Removed})
	eventuallyLen(t, m, 1)
	if got, want := names(t, m), []string{"a 3/11 1"}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
}

// eventuallyLen waits for deleted listeners to be closed.
func eventuallyLen(t *testing.T, m *manager.Manager, n int) {
	t.Helper()
	for seq := uint64(0); m.Len() > n; {
		e, err := m.Next(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		seq = e.Seq
	}
}

// An atomic change of which one part fails leaves nothing behind: not in the
// set, not in the kernel.
func TestApplyAtomic(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m := newManager(t, t.TempDir())
	defer shutdown(t, m)
	if _, _, err := m.Apply(t.Context(), []manager.Wish{wish("old", 5, "tcp://127.0.0.1:0")}, manager.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	before := names(t, m)
	wishes := []manager.Wish{
		wish("old", 6, "tcp://127.0.0.1:0"), wish("new", 7, "tcp://127.0.0.1:0"), wish("bad", 8, "tcp://"+taken.Addr().String()),
	}
	if _, _, err := m.Apply(t.Context(), wishes, manager.ApplyOptions{Atomic: true}); !errors.Is(err, listeners.AddressInUse) {
		t.Errorf("atomic: %v", err)
	}
	if after := names(t, m); !slices.Equal(before, after) {
		t.Errorf("before %v, after a failure %v", before, after)
	}
	all, _, err := m.Apply(t.Context(), wishes, manager.ApplyOptions{})
	if want := []manager.Action{manager.Updated, manager.Created, manager.NotApplied}; err != nil || !slices.Equal(actions(all), want) {
		t.Errorf("%v, want %v: %v", actions(all), want, err)
	}
}
