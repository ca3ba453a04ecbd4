package manager_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/manager"
)

// A listener whose address is not there yet runs as soon as it is, not only when it
// is tried again. In a network namespace of its own, where who runs the test is
// root.
func TestAddressThatComesIsUsedAtOnce(t *testing.T) {
	const mark = "SOCKMGR_TEST_NAMESPACE"
	if os.Getenv(mark) == "" {
		if _, err := exec.LookPath("ip"); err != nil {
			t.Skip("there is no ip (apt-get install iproute2)")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), mark+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if uid := os.Getuid(); uid != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil && cmd.ProcessState == nil:
			t.Skipf("there are no namespaces here for who is not root: %v", err)
		case err != nil || !strings.Contains(string(out), "--- PASS"):
			t.Errorf("%v\n%s", err, out)
		default:
			t.Logf("%s", out)
		}
		return
	}
	ip := func(args ...string) {
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	ip("link", "set", "lo", "up")
	dir := t.TempDir()
	both := map[string]string{"four": "192.0.2.7/32", "six": "2001:db8::7/128"}
	for _, cidr := range both {
		ip("addr", "add", cidr, "dev", "lo")
	}
	m := newManager(t, dir)
	for name, uri := range map[string]string{"four": "tcp://192.0.2.7:0", "six": "udp://[2001:db8::7]:0"} {
		if _, _, err := m.Create(t.Context(), name, echo(uri), false); err != nil {
			t.Fatal(err)
		}
	}
	shutdown(t, m)
	for _, cidr := range both {
		ip("addr", "del", cidr, "dev", "lo")
	}
	m = newManager(t, dir)
	defer shutdown(t, m)
	for name, cidr := range both {
		info := waitFor(t, m, name, func(i manager.Info) bool { // tried again once: the next wait is 2 s or more
			return i.State == manager.Failed && time.Until(i.Retry) > 1200*time.Millisecond
		})
		ip("addr", "add", cidr, "dev", "lo")
		came := time.Now()
		waitFor(t, m, name, func(i manager.Info) bool { return i.State == manager.Running })
		if now := time.Now(); !now.Before(info.Retry) {
			t.Errorf("%s runs %v after its address came, only when it was tried again", name, now.Sub(came))
		} else {
			t.Logf("%s runs %v after its address came; it was to be tried again in %v", name, now.Sub(came), info.Retry.Sub(came))
		}
	}
}

// waitFor waits until the listener is so.
func waitFor(t *testing.T, m *manager.Manager, name string, so func(manager.Info) bool) manager.Info {
	t.Helper()
	for {
		seq := m.Seq()
		info, err := m.Get(t.Context(), name, true)
		if err != nil {
			t.Fatal(err)
		}
		if so(info) {
			return info
		}
		if _, err := m.Next(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
}
