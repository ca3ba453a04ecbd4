//go:build linux

package deploy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mountpoint is a line of /proc/self/mountinfo.
type mountpoint struct {
	at, kind string
	dev      uint64
}

func mountpoints() ([]mountpoint, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mountpoint
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		var major, minor uint32
		if len(fields) < 5 || len(kind) < 1 {
			return nil, fmt.Errorf("a line of mountinfo: %q", line)
		}
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("a line of mountinfo: %q: %w", line, err)
		}
		all = append(all, mountpoint{at: fields[4], kind: kind[0], dev: unix.Mkdev(major, minor)})
	}
	return all, nil
}

// lookAround refuses to go on if anything of the host's files can be seen, or the
// kernel's switches can be turned.
func lookAround(p *plan) error {
	mounts, err := mountpoints()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, m := range mounts {
		seen[m.at] = true
		switch m.kind {
		case "proc", "sysfs", "cgroup2", "devpts":
		case "tmpfs":
			if slices.Contains(p.HostDevs, m.dev) {
				return fmt.Errorf("%s is a tmpfs of the host", m.at)
			}
		default:
			return fmt.Errorf("%s is a %s: only what was made for the sandbox may be mounted", m.at, m.kind)
		}
	}
	for _, at := range []string{"/", "/tmp", "/run", "/var", "/dev", "/dev/shm", "/proc", "/proc/sys", "/sys", "/sys/fs/cgroup"} {
		if !seen[at] {
			return fmt.Errorf("%s is not a mount of its own", at)
		}
	}
	for _, dir := range []string{"/", "/tmp", "/var/tmp", "/run", "/home", "/root", "/etc"} {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		if slices.Contains(p.HostDevs, st.Dev) {
			return fmt.Errorf("%s is on a file system of the host", dir)
		}
	}
	for _, path := range []string{p.Sentinel, "/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system", "/run/systemd"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s can be seen", path), err)
		}
	}
	for _, path := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"} {
		if err := unix.Access(path, unix.W_OK); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ENOENT) {
			return errors.Join(fmt.Errorf("%s is not read-only", path), err)
		}
	}
	return nil
}

// Where the host's files are, no systemd is started.
func TestLookAround(t *testing.T) {
	p := plan{Sentinel: filepath.Join(t.TempDir(), "sentinel"), HostDevs: hostDevices(t)}
	if err := os.WriteFile(p.Sentinel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := lookAround(&p)
	if err == nil {
		t.Fatal("this host looks like a sandbox")
	}
	t.Log("refused:", err)
	if err := becomeSystemd(filepath.Join(t.TempDir(), "plan")); err == nil {
		t.Fatal("a systemd would have been started")
	}
}
