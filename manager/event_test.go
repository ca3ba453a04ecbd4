package manager_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

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
		if want := "uid:7"; e.Cause.Actor != want {
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

// 8 clients against backlog 2, of which the daemon accepts one: the overflow is
// told of, with its numbers.
func TestQueueEvents(t *testing.T) {
	m := newManager(t, "")
	defer shutdown(t, m)
	_, seq := m.Events()
	d := echo("tcp://127.0.0.1:0")
	d.Options = map[string]listeners.Value{"backlog": listeners.IntValue(2), "max_connections": listeners.IntValue(1)}
	info, _, err := m.Create(t.Context(), "web", d, false)
	if err != nil {
		t.Fatal(err)
	}
	ping(t, info.Live.Bound[0].IP.String()) // it accepts
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", info.Live.Bound[0].IP.String())
			if err == nil {
				<-ctx.Done()
				c.Close()
			}
		})
	}
	defer clients.Wait()
	defer cancel()
	for want := map[string]bool{"listener.queue_high": true, "listener.drops": true}; len(want) > 0; {
		e, err := m.NextEvent(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		seq = e.Seq
		delete(want, e.Type)
		if e.Type == "listener.queue_high" && (e.Attributes["limit"] != "2" || e.Severity != manager.Warning) {
			t.Errorf("%+v", e)
		}
	}
	if info, err := m.Get(t.Context(), "web", true); err != nil || info.Live.Sockets[0].Queue.AcceptPeak < 2 || info.Live.Queue.Drops == 0 {
		t.Errorf("%+v, %v", info.Live.Sockets[0].Queue, err)
	}
}

// An event that is told later has the time, the number and the cause of when it was
// told; it is put into words when it is read, once, whoever reads it.
func TestTellLater(t *testing.T) {
	m := newManager(t, "")
	defer shutdown(t, m)
	_, seq := m.Events()
	words := 0
	before := time.Now()
	ctx := manager.WithCause(t.Context(), manager.Cause{Actor: "uid:7", RequestID: "r1"})
	m.TellLater(ctx, 1024, func() manager.Event {
		words++
		return manager.Event{Resource: "daemon", Type: "call.done", Message: "later"}
	})
	told := time.Now()
	if words != 0 {
		t.Error("it was put into words though nobody has read it")
	}
	e, err := m.NextEvent(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	kept, _ := m.Events()
	if words != 1 || e.Message != "later" || kept[0].Message != "later" {
		t.Errorf("put into words %d times: %+v, then %+v", words, e, kept[0])
	}
	if e.Seq != seq+1 || e.Cause.Actor != "uid:7" || e.Time.Before(before) || e.Time.After(told) {
		t.Errorf("told between %v and %v as %d: %+v", before, told, seq+1, e)
	}
}
