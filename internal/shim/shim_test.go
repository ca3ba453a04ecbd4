package shim_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/shim"
)

// run runs a program through the shim, and returns what it says on descriptor 1.
func run(t *testing.T, p shim.Program) (string, error) {
	t.Helper()
	runtime.LockOSThread() // which the program would not outlive
	defer runtime.UnlockOSThread()
	s, err := shim.Prepare(p)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	pid, pidfd, err := s.Fork([]uintptr{null.Fd(), w.Fd(), 2})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	failed := s.Wait(true)
	said, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Error(err)
	}
	return string(said), failed
}

func script(text string) shim.Program {
	return shim.Program{Path: "/bin/sh", Argv: []string{"sh", "-c", text}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/"}
}

// values are the lines of /proc/self/status.
func values(text string) map[string]string {
	v := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		v[name] = strings.TrimSpace(value)
	}
	return v
}

const nothing = "0000000000000000"

// What a program has, whatever the process has that starts it.
func TestProgramHasNothing(t *testing.T) {
	signal.Ignore(unix.SIGPIPE, unix.SIGUSR1)
	defer signal.Reset(unix.SIGPIPE, unix.SIGUSR1)
	before := unix.Umask(0o077)
	defer unix.Umask(before)
	t.Setenv("SECRET", "of the daemon")
	leak, err := unix.Open(os.DevNull, unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	said, err := run(t, script("cat /proc/self/status; echo fds: $(ls /proc/self/fd); echo env: $(env); umask"))
	if err != nil {
		t.Fatal(err)
	}
	got := values(said)
	for name, want := range map[string]string{"NoNewPrivs": "1", "CapInh": nothing, "CapAmb": nothing, "SigIgn": nothing, "SigBlk": nothing, "Umask": "0022", "fds": "0 1 2 3"} {
		if got[name] != want {
			t.Errorf("%s is %q, not %q", name, got[name], want)
		}
	}
	if strings.Contains(said, "SECRET") {
		t.Errorf("environment %q", got["env"])
	}
	if os.Geteuid() != 0 {
		return
	}
	if got["CapEff"] == nothing {
		t.Error("a program of root's own is not root's any more")
	}
	powerless := script("cat /proc/self/status")
	powerless.Powerless = true
	if said, err = run(t, powerless); err != nil || values(said)["CapEff"] != nothing || values(said)["CapBnd"] != nothing {
		t.Errorf("powerless: %v, %v", values(said), err)
	}
}

// Another user's program has no capability, and gains none: not by a file of
// root's that is setuid, either.
func TestProgramOfUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root; TestProgramHasNothing sees that there is no_new_privs")
	}
	id, err := exec.LookPath("id")
	if err != nil {
		t.Skip("SKIPPED: there is no id(1) here")
	}
	dir := t.TempDir()
	text, err := os.ReadFile(id)
	if err != nil {
		t.Fatal(err)
	}
	setuid := filepath.Join(dir, "id")
	if err := errors.Join(os.WriteFile(setuid, text, 0o755), os.Chmod(setuid, 0o755|os.ModeSetuid), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	p := script("cat /proc/self/status; echo id: $(id -u) $(id -G); echo setuid: $(" + setuid + " -u)")
	p.As = &shim.User{UID: 65534, GID: 65534, Groups: []uint32{65534, 4242}}
	said, err := run(t, p)
	if err != nil {
		t.Fatal(err)
	}
	got := values(said)
	for name, want := range map[string]string{
		"NoNewPrivs": "1", "CapInh": nothing, "CapPrm": nothing, "CapEff": nothing, "CapBnd": nothing, "CapAmb": nothing,
		"id": "65534 65534 4242", "setuid": "65534",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, not %q", name, got[name], want)
		}
	}
	control := exec.Command(setuid, "-u") // as itself it works: the file is one that gives
	control.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := control.CombinedOutput(); string(out) != "0\n" {
		t.Logf("setuid files do not count here: %q, %v", out, err)
	}
}

// What fails is told: the step, and the errno.
func TestProgramFails(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for want, p := range map[string]shim.Program{
		"execve /missing: no such file or directory (ENOENT)": {Path: "/missing", Dir: "/"},
		"execve " + garbage + ": exec format error (ENOEXEC)": {Path: garbage, Dir: "/"},
		"execve " + dir + ": permission denied (EACCES)":      {Path: dir, Dir: "/"},
		"chdir /missing: no such file or directory (ENOENT)":  {Path: "/bin/true", Dir: "/missing"},
		"execve /bin/true: argument list too long (E2BIG)":    {Path: "/bin/true", Dir: "/", Argv: []string{"true", strings.Repeat("x", 1<<20)}},
		"execve \x1b[31m: no such file or directory (ENOENT)": {Path: "\x1b[31m", Dir: "/"},
		"execve a\x00b: invalid argument (EINVAL)":            {Path: "a\x00b", Dir: "/"},
		"setgroups: operation not permitted (EPERM)":          {Path: "/bin/true", Dir: "/", As: &shim.User{UID: 1, GID: 1}},
		"execve /etc/passwd: permission denied (EACCES)":      {Path: "/etc/passwd", Dir: "/", As: &shim.User{UID: 65534, GID: 65534}},
		"chdir " + dir + "/..: permission denied (EACCES)":    {Path: "/bin/true", Dir: dir + "/..", As: &shim.User{UID: 65534, GID: 65534}},
	} {
		if p.As != nil && (p.As.UID == 1) == (os.Geteuid() == 0) {
			continue // as root there is no such mistake; as another there is only the first
		}
		if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := run(t, p)
		failed, ok := errors.AsType[*shim.Error](err)
		if !ok || failed.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
