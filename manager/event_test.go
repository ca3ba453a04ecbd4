package manager_test

import (
	"context"
	"slices"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// The event log tells what was done, by whom, in order.
func TestEvents(t *testing.T) {
	m := newManager(t, "")
	defer shutdown(t, m)
	_, seq := m.Events()
	ctx := manager.WithCause(context.Background(), manager.Cause{Actor: "uid:7", RequestID: "r1"})
	if _, _, err := m.Create(ctx, "web", echo("tcp://127.0.0.1:0"), false); err != nil {
		t.Fatal(err)
	}
	values := map[string]listeners.Value{"backlog": listeners.IntValue(1 << 30), "tcp.no_delay": listeners.BoolValue(true)}
	if _, err := m.SetOptions(ctx, "web", values, manager.ScopeAll, "", false); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Delete(ctx, "web", "", 0, false); err != nil {
		t.Fatal(err)
	}
	var types []string
	for !slices.Contains(types, "listener.deleted") {
		e, err := m.NextEvent(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		seq = e.Seq
		types = append(types, e.Type)
		if want := "uid:7"; e.Cause.Actor != want && e.Type != "listener.deleted" { // the last connection may end it
			t.Errorf("%s was caused by %q, want %q", e.Type, e.Cause.Actor, want)
		}
	}
	want := []string{"listener.created", "listener.updated", "option.clamped", "listener.deleted"}
	if !slices.Equal(types, want) {
		t.Errorf("events %v, want %v", types, want)
	}
	if kept, last := m.Events(); len(kept) < 4 || kept[0].Seq != last || kept[0].Type != "listener.deleted" {
		t.Errorf("kept %d events, the newest %+v", len(kept), kept[0])
	}
}
