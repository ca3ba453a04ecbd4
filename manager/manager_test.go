package manager_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

var quiet = hclog.NewNullLogger()

func newManager(t *testing.T, dir string) *manager.Manager {
	t.Helper()
	m, err := manager.New(manager.Config{Poller: "epoll", Loops: testLoops(t), StateDir: dir, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

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

func shutdown(t *testing.T, m *manager.Manager) {
	t.Helper()
	if err := m.Shutdown(context.Background(), 0); err != nil {
		t.Error(err)
	}
}

func echo(uris ...string) manager.Draft {
	return manager.Draft{Listen: uris, Handler: listeners.Echo{}}
}

func ping(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write([]byte("ping"))
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestLife(t *testing.T) {
	dir := t.TempDir()
	m := newManager(t, dir)
	ctx := t.Context()
	d := echo("tcp://127.0.0.1:0")
	d.Options = map[string]listeners.Value{"backlog": listeners.IntValue(7)}
	info, _, err := m.Create(ctx, "web", d, false)
	if err != nil {
		t.Fatal(err)
	}
	addr := info.Live.Bound[0].IP.String()
	if info.State != manager.Running || info.Live.Queue.AcceptLimit != 7 {
		t.Errorf("%+v", info)
	}
	ping(t, addr)
	if _, _, err := m.Create(ctx, "web", d, false); !errors.Is(err, listeners.ListenerAlreadyExists) {
		t.Errorf("second create: %v", err)
	}
	_, _, err = m.Create(ctx, "web2", echo("tcp://"+addr), false)
	var f *listeners.Fault
	if !errors.As(err, &f) || f.Reason != listeners.AddressInUse || f.Meta["holder_listener"] != "web" {
		t.Errorf("create on a taken port: %v", err)
	}
	if m.Len() != 1 {
		t.Errorf("%d listeners", m.Len())
	}
	results, err := m.SetOptions(ctx, "web", map[string]listeners.Value{"backlog": listeners.IntValue(100)}, manager.ScopeAll, "", false)
	if err != nil || len(results) != 1 || results[0].Outcome != listeners.Applied || results[0].Effective != listeners.IntValue(100) {
		t.Errorf("tune: %+v, %v", results, err)
	}
	if _, err := m.Stop(ctx, "web", "", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("stopped and answers")
	}
	if info, err := m.Start(ctx, "web", ""); err != nil || info.State != manager.Running || info.Live.Queue.AcceptLimit != 100 {
		t.Errorf("start: %+v, %v", info, err)
	} else {
		addr = info.Live.Bound[0].IP.String()
	}
	info, _, err = m.Update(ctx, "web", "", func(d *manager.Draft) error {
		d.Listen = append(d.Listen, "tcp://127.0.0.2:0")
		d.Labels = map[string]string{"tier": "edge"}
		return nil
	}, true, false)
	if err != nil || len(info.Live.Bound) != 2 {
		t.Fatalf("update: %+v, %v", info, err)
	}
	ping(t, addr)
	ping(t, info.Live.Bound[1].IP.String())
	uid := info.UID
	shutdown(t, m)
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("shut down and answers")
	}

	m = newManager(t, dir)
	info, err = m.Get(ctx, "web", true)
	if err != nil || info.UID != uid || info.State != manager.Running || info.Labels["tier"] != "edge" || info.Live.Queue.AcceptLimit != 200 {
		t.Errorf("after restart: %+v, %v", info, err)
	}
	ping(t, info.Live.Bound[0].IP.String())
	if _, err := m.Delete(ctx, "web", "", 0, false); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(0); ; {
		e, err := m.Next(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		if seq = e.Seq; e.Type == manager.Deleted {
			break
		}
	}
	if m.Len() != 0 {
		t.Errorf("%d listeners", m.Len())
	}
	shutdown(t, m)
	if fi, err := os.Stat(dir + "/state.db"); err != nil || fi.Mode().Perm() != 0o600 {
		t.Error(fi, err)
	}
}

// Who has deleted a listener that serves nobody may make another of that name at
// once, however often.
func TestDeletedIsGone(t *testing.T) {
	m := newManager(t, "")
	defer shutdown(t, m)
	d := manager.Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &listeners.Echo{}}
	for range 200 {
		if _, _, err := m.Create(t.Context(), "again", d, false); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Delete(t.Context(), "again", "", 0, false); err != nil {
			t.Fatal(err)
		}
	}
}
