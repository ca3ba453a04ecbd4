//go:build linux

package deploy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// planEnv names the file of the plan. A test program that has it in its
// environment is the first process of a sandbox, and becomes systemd.
const planEnv = "SOCKMGR_SANDBOX"

const (
	systemdProgram   = "/usr/lib/systemd/systemd"
	systemctlProgram = "/usr/bin/systemctl"
)

// unitDir is the only directory that systemd reads units from.
const unitDir = "/units"

// plan is what the first process of a sandbox is to make.
type plan struct {
	Root     string            // an empty directory, where its root is mounted
	Console  string            // the terminal that systemd writes its log to
	Copies   map[string]string // path inside: file of the host
	Texts    map[string]string // path inside: content
	Sentinel string            // a file below the host's /tmp
	HostDevs []uint64          // devices of the host's file systems
	Args     []string          // of systemd
}

// becomeSystemd makes a root in which nothing of the host's file systems is, and
// runs systemd there: one that saw the host's /tmp and its distribution's units
// would empty the one as the others say. It returns only if it failed.
func becomeSystemd(path string) error {
	runtime.LockOSThread() // cgroup namespace and capabilities are a thread's
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("this is not the first process of a pid namespace")
	}
	for _, step := range []struct {
		what string
		do   func(*plan) error
	}{
		{"cgroup namespace", func(*plan) error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"own mounts", func(*plan) error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mounts", mountAll},
		{"devices", makeDevices},
		{"files", fillRoot},
		{"kernel", guardKernel},
		{"root", enterRoot},
		{"a look around", lookAround},
		{"capabilities", dropCapabilities},
	} {
		if err := step.do(&p); err != nil {
			return fmt.Errorf("sandbox: %s: %w", step.what, err)
		}
	}
	return os.NewSyscallError("execve", unix.Exec(systemdProgram, append([]string{systemdProgram}, p.Args...), []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "container=sockmgr", "SYSTEMD_UNIT_PATH=" + unitDir,
		"SYSTEMD_GENERATOR_PATH=/empty", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/empty",
	}))
}

func mountAll(p *plan) error {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		at, kind string
		flags    uintptr
		options  string
	}{
		{"", "tmpfs", unix.MS_NOSUID, "mode=755,size=256m"},
		{"proc", "proc", quiet, ""},
		{"sys", "sysfs", quiet | unix.MS_RDONLY, ""},
		{"sys/fs/cgroup", "cgroup2", quiet, ""},
		{"dev", "tmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=755,size=1m"},
		{"dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=666,mode=620"},
		{"dev/shm", "tmpfs", quiet, "mode=1777,size=64m"},
		{"run", "tmpfs", quiet, "mode=755,size=64m"},
		{"tmp", "tmpfs", quiet, "mode=1777,size=64m"},
		{"var", "tmpfs", quiet, "mode=755,size=64m"},
	} {
		at := filepath.Join(p.Root, m.at)
		if m.at != "sys/fs/cgroup" { // sysfs has that one
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.kind, at, m.kind, m.flags, m.options); err != nil {
			return &os.PathError{Op: "mount " + m.kind, Path: at, Err: err}
		}
	}
	return nil
}

func makeDevices(p *plan) error {
	for name, number := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7), "random": unix.Mkdev(1, 8), "urandom": unix.Mkdev(1, 9), "tty": unix.Mkdev(5, 0),
	} {
		path := filepath.Join(p.Root, "dev", name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(number)); err != nil {
			return &os.PathError{Op: "mknod", Path: path, Err: err}
		}
		if err := os.Chmod(path, 0o666); err != nil { // whatever the umask is
			return err
		}
	}
	if err := os.Symlink("pts/ptmx", filepath.Join(p.Root, "dev/ptmx")); err != nil {
		return err
	}
	console := filepath.Join(p.Root, "dev/console")
	if err := os.WriteFile(console, nil, 0o600); err != nil {
		return err
	}
	return os.NewSyscallError("mount", unix.Mount(p.Console, console, "", unix.MS_BIND, ""))
}

// fillRoot copies: a bind mount would be the host's file system, whatever its flags.
func fillRoot(p *plan) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if to, err := os.Readlink("/" + name); err == nil {
			to = strings.TrimPrefix(to, "/")
			if err := errors.Join(os.MkdirAll(filepath.Join(p.Root, to), 0o755), os.Symlink(to, filepath.Join(p.Root, name))); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{"empty", "root", "home", "var/tmp", "var/log", "etc/sockmgr", "usr/local/bin", unitDir, "old"} {
		if err := os.MkdirAll(filepath.Join(p.Root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("../run", filepath.Join(p.Root, "var/run")); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(p.Root, "var/tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	write := func(to string, text []byte, mode os.FileMode) error {
		to = filepath.Join(p.Root, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, text, mode)
	}
	for to, from := range p.Copies {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := write(to, text, 0o755); err != nil {
			return err
		}
	}
	for to, text := range p.Texts {
		if err := write(to, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// guardKernel makes read-only what of /proc is the whole machine's.
func guardKernel(p *plan) error {
	for _, name := range []string{"sys", "sysrq-trigger", "irq", "bus"} {
		at := filepath.Join(p.Root, "proc", name)
		if _, err := os.Stat(at); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := unix.Mount(at, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return &os.PathError{Op: "mount", Path: at, Err: err}
		}
		if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return &os.PathError{Op: "remount", Path: at, Err: err}
		}
	}
	return nil
}

func enterRoot(p *plan) error {
	if err := unix.PivotRoot(p.Root, filepath.Join(p.Root, "old")); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount2", err)
	}
	return os.Remove("/old")
}

// kept are the capabilities that systemd may have and give: not those over the
// clock, the kernel's modules and log, the hardware, or a boot.
var kept = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_BROADCAST, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_IPC_OWNER, unix.CAP_SYS_CHROOT,
	unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN, unix.CAP_SYS_NICE, unix.CAP_SYS_RESOURCE, unix.CAP_MKNOD, unix.CAP_SETFCAP, unix.CAP_BPF,
}

func dropCapabilities(*plan) error {
	keep := map[int]bool{}
	for _, c := range kept {
		keep[c] = true
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: an older kernel has not that one
			return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
		}
	}
	return nil
}
