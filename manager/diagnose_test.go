package manager_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// nobody is a keeper that keeps nothing.
type nobody struct{}

func (nobody) Store(string, int)            {}
func (nobody) StoreIfRoom(string, int) bool { return false }
func (nobody) Remove(string)                {}
func (nobody) Wait(context.Context) error   { return nil }

// Diagnose says what is missing for which feature, and nothing of what is there.
func TestDiagnose(t *testing.T) {
	finding := func(m *manager.Manager, check string) manager.Finding {
		t.Helper()
		all, err := m.Diagnose(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if (f.Fix == "") != (f.Status == manager.FindingOK) {
				t.Errorf("a fix is for what is not well: %+v", f)
			}
			if f.Check == check {
				return f
			}
		}
		t.Fatalf("there is no check %s in %v", check, all)
		return manager.Finding{}
	}
	dir := filepath.Join(t.TempDir(), "state")
	m := newManager(t, dir)
	for _, check := range []string{"kernel.pidfd", "kernel.sock_diag", "kernel.tcp_info", "kernel.memfd", "kernel.udp_gro", "kernel.udp_segment", "state.mode"} {
		if f := finding(m, check); f.Status != manager.FindingOK {
			t.Errorf("%+v", f)
		}
	}
	finding(m, "sysctl.net.ipv4.tcp_max_syn_backlog")
	finding(m, "sysctl.fs.pipe-user-pages-soft")
	for mode, want := range map[os.FileMode]manager.FindingStatus{0o755: manager.FindingWarning, 0o720: manager.FindingWarning, 0o700: manager.FindingOK} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if f := finding(m, "state.mode"); f.Status != want {
			t.Errorf("mode %v: %+v", mode, f)
		}
	}
	if f := finding(m, "descriptor_store"); f.Status != manager.FindingWarning {
		t.Errorf("nobody keeps the sockets: %+v", f)
	}
	shutdown(t, m)
	kept, problems := listeners.NewKept(nobody{}, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	m, err := manager.New(manager.Config{Poller: "epoll", Kept: kept, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer shutdown(t, m)
	if f := finding(m, "descriptor_store"); f.Status != manager.FindingOK {
		t.Errorf("the sockets are kept: %+v", f)
	}
}
