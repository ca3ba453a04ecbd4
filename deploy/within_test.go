//go:build linux

package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// path is where the host sees a file of the sandbox.
func (s *sandbox) path(inside string) string {
	return filepath.Join("/proc", strconv.Itoa(s.pid), "root", inside)
}

// until looks again and again.
func (s *sandbox) until(ctx context.Context, t *testing.T, what string, is func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-s.ended:
			t.Fatalf("until %s: the first process ended", what)
		case <-ctx.Done():
			t.Fatalf("until %s: %v", what, ctx.Err())
		}
	}
}

// systemctl asks the systemd of the sandbox: it runs in its namespaces, or not at all.
func (s *sandbox) systemctl(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.trySystemctl(ctx, args...)
	if err != nil {
		t.Fatalf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (s *sandbox) trySystemctl(ctx context.Context, args ...string) (string, error) {
	ns := fmt.Sprintf("/proc/%d/ns/", s.pid)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--mount=" + ns + "mnt", "--pid=" + ns + "pid", "--net=" + ns + "net", "--", systemctlProgram, "--no-pager"}, args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "SYSTEMD_UNIT_PATH=" + unitDir, "container=sockmgr"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// show is one property of the service.
func (s *sandbox) show(ctx context.Context, t *testing.T, property string) string {
	t.Helper()
	return s.systemctl(ctx, t, "show", "--value", "-p", property, "sockmgr.service")
}

// inNetwork runs do in the network of the sandbox. Its thread is not used again.
func (s *sandbox) inNetwork(do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid))
		if err != nil {
			result <- err
			return
		}
		err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err = errors.Join(os.NewSyscallError("setns", err), ns.Close()); err == nil {
			err = do()
		}
		result <- err
	}()
	return <-result
}

// patience is the longest that a client waits.
const patience = 10 * time.Second

// dial makes its socket on the thread that it is called from.
func dial(address string) (net.Conn, error) {
	return net.DialTimeout("tcp4", address, patience)
}
