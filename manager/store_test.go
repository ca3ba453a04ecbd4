package manager

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	bolt "go.etcd.io/bbolt"

	"github.com/sockmgr/sockmgr/listeners"
)

func openManager(t *testing.T, dir string) *Manager {
	t.Helper()
	m, err := New(Config{Poller: "epoll", StateDir: dir, Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func echoDraft(uris ...string) Draft { return Draft{Listen: uris, Handler: &listeners.Echo{}} }

// answers sends a word through an echo.
func answers(t *testing.T, addr string) bool {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "x")
	n, err := c.Read(make([]byte, 1))
	return n == 1 && err == nil
}

// When a change cannot be saved it is not made: what ran runs as it was, what
// was new is not bound.
func TestStoreFails(t *testing.T) {
	dir := t.TempDir()
	m := openManager(t, dir)
	ctx := t.Context()
	info, _, err := m.Create(ctx, "web", echoDraft("tcp://127.0.0.1:0"), false)
	if err != nil {
		t.Fatal(err)
	}
	addr := info.Live.Bound[0].IP.String()
	if _, _, err := m.Create(ctx, "off", Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &listeners.Echo{}, Desired: WantStopped}, false); err != nil {
		t.Fatal(err)
	}
	before, err := m.List(ctx, "", 10, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.store.db.Close(); err != nil { // the disk goes away
		t.Fatal(err)
	}

	free := "@sockmgr-" + newUID()
	calls := map[string]func() error{
		"create": func() error {
			_, _, err := m.Create(ctx, "new", echoDraft("unix://"+free), false)
			return err
		},
		"create stopped": func() error {
			_, _, err := m.Create(ctx, "new", Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &listeners.Echo{}, Desired: WantStopped}, false)
			return err
		},
		"update": func() error {
			_, _, err := m.Update(ctx, "web", "", func(d *Draft) error {
				d.Listen = []string{"unix://" + free}
				d.Options = map[string]listeners.Value{"backlog": listeners.IntValue(5)}
				return nil
			}, true, false)
			return err
		},
		"set": func() error {
			_, err := m.SetOptions(ctx, "web", map[string]listeners.Value{"backlog": listeners.IntValue(5)}, ScopeAll, "", false)
			return err
		},
		"set later": func() error {
			_, err := m.SetOptions(ctx, "off", map[string]listeners.Value{"backlog": listeners.IntValue(5)}, ScopeAll, "", false)
			return err
		},
		"stop":   func() error { _, err := m.Stop(ctx, "web", "", 0); return err },
		"start":  func() error { _, err := m.Start(ctx, "off", ""); return err },
		"delete": func() error { _, err := m.Delete(ctx, "web", "", 0, false); return err },
	}
	for name, call := range calls {
		err := call()
		if !errors.Is(err, listeners.StoreFailed) || !strings.Contains(err.Error(), filepath.Join(dir, "state.db")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; { // what was undone closes in its own time
		m.mu.Lock()
		attached := len(m.attached)
		m.mu.Unlock()
		if attached == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d listeners are on the loop", attached)
		}
	}
	after, err := m.List(ctx, "", 10, true)
	if err != nil || len(after) != len(before) {
		t.Fatalf("%v, %v", after, err)
	}
	for i := range after {
		a, b := after[i], before[i]
		if a.Revision != b.Revision || a.Generation != b.Generation || a.Desired != b.Desired || a.State != b.State || !a.Spec.Equal(b.Spec) {
			t.Errorf("%s is\n%+v, was\n%+v", a.Name, a, b)
		}
		if a.Name == "web" && a.Live.Sockets[0].Queue.AcceptLimit != b.Live.Sockets[0].Queue.AcceptLimit {
			t.Errorf("%+v, was %+v", a.Live.Sockets[0].Queue, b.Live.Sockets[0].Queue)
		}
	}
	if !answers(t, addr) {
		t.Error("it does not answer any more")
	}
	if c, err := net.Dial("unix", free); err == nil {
		c.Close()
		t.Error("what was not made answers")
	}
	if err := m.Shutdown(context.Background(), 0); err != nil {
		t.Error(err)
	}
	m = openManager(t, dir) // as it was saved
	if m.Len() != 2 {
		t.Errorf("%d listeners", m.Len())
	}
	if err := m.Shutdown(context.Background(), 0); err != nil {
		t.Error(err)
	}
}

// A store that cannot be read keeps the daemon from starting, and is left as it
// is.
func TestStoreUnreadable(t *testing.T) {
	fill := func(f func(meta, all *bolt.Bucket) error) func(path string) error {
		return func(path string) error {
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			defer db.Close()
			return db.Update(func(tx *bolt.Tx) error {
				meta, errMeta := tx.CreateBucketIfNotExists(bucketMeta)
				all, errAll := tx.CreateBucketIfNotExists(bucketListeners)
				return errors.Join(errMeta, errAll, f(meta, all))
			})
		}
	}
	for name, c := range map[string]struct {
		write func(path string) error
		says  string
	}{
		"text":           {func(path string) error { return os.WriteFile(path, []byte("important"), 0o600) }, "damaged and left as it is"},
		"zeros":          {func(path string) error { return os.WriteFile(path, make([]byte, 64<<10), 0o600) }, "left as it is"},
		"newer":          {fill(func(meta, _ *bolt.Bucket) error { return meta.Put(keyFormat, encode(storeFormat+1)) }), "of a newer sockmgr"},
		"no JSON":        {fill(func(_, all *bolt.Bucket) error { return all.Put([]byte("web"), []byte("{")) }), `listener "web" cannot be read`},
		"another's name": {fill(func(_, all *bolt.Bucket) error { return all.Put([]byte("web"), []byte(`{"name":"api"}`)) }), `listener "web" cannot be read`},
		"no spec": {fill(func(_, all *bolt.Bucket) error {
			return all.Put([]byte("web"), []byte(`{"name":"web","generation":1}`))
		}), "left as it is"},
		"unknown option": {fill(func(_, all *bolt.Bucket) error {
			return all.Put([]byte("web"), []byte(`{"name":"web","generation":1,"spec":{"listen":["tcp://:7"],"handler":{"kind":"echo","config":{}},"options":{"backlg":1}}}`))
		}), "backlg"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.db")
			if err := c.write(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			m, err := New(Config{Poller: "epoll", StateDir: dir, Log: hclog.NewNullLogger()})
			if err == nil {
				m.Shutdown(context.Background(), 0)
			}
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %s", err, c.says)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("the file is another, %v", err)
			}
		})
	}
}

// A record says handler and options as they were, whatever they are.
func TestStoreKeeps(t *testing.T) {
	dir := t.TempDir()
	m := openManager(t, dir)
	drafts := map[string]Draft{
		"http":    {Listen: []string{"tcp://127.0.0.1:0"}, Handler: &listeners.HTTP{Status: 404, Headers: map[string]string{"X-A": "b"}, Body: []byte("\x00\xff")}},
		"reply":   {Listen: []string{"udp://127.0.0.1:0"}, Handler: &listeners.Reply{Payload: []byte("\x00\xff"), KeepOpen: true}},
		"discard": {Listen: []string{"tcp://127.0.0.1:0"}, Handler: &listeners.Discard{}, Labels: map[string]string{"ä": "\u2028"}, Desired: WantStopped},
		"echo": {Listen: []string{"tcp://127.0.0.1:0"}, Handler: &listeners.Echo{}, Options: map[string]listeners.Value{
			"backlog": listeners.IntValue(7), "idle_timeout": listeners.DurationValue(1500 * time.Millisecond), "tcp.no_delay": listeners.BoolValue(false),
			"read_buffer_bytes": listeners.BytesValue(4096), "linger": listeners.DurationValue(0),
		}},
	}
	want := map[string]*Record{}
	for name, d := range drafts {
		info, _, err := m.Create(t.Context(), name, d, false)
		if err != nil {
			t.Fatal(err)
		}
		want[name] = info.Record
	}
	if err := m.Shutdown(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	m = openManager(t, dir)
	for name, w := range want {
		got, err := m.Get(t.Context(), name, false)
		if err != nil || !got.Spec.Equal(w.Spec) || got.UID != w.UID || got.Desired != w.Desired || got.Revision != w.Revision ||
			!got.Created.Equal(w.Created) || got.Labels["ä"] != w.Labels["ä"] || got.Etag() != w.Etag() {
			t.Errorf("%s is\n%+v, was\n%+v; %v", name, got.Record, w, err)
		}
	}
	// Revisions go on where they were, so that no etag comes again.
	info, err := m.Start(t.Context(), "discard", "")
	if err != nil || info.Revision != 5 {
		t.Errorf("revision %d, %v", info.Revision, err)
	}
	if err := m.Shutdown(context.Background(), 0); err != nil {
		t.Error(err)
	}
}
