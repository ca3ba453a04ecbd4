//go:build linux

package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// library is a line of ldd.
var library = regexp.MustCompile(`(?m)(?:=> |^\s+)(/\S+) \(0x`)

// addPrograms adds programs of the host, each with its libraries.
func addPrograms(t *testing.T, copies map[string]string, programs ...string) {
	t.Helper()
	if executor := "/usr/lib/systemd/systemd-executor"; unix.Access(executor, unix.X_OK) == nil { // from systemd 255 on
		programs = append(programs, executor)
	}
	for _, program := range programs {
		copies[program] = program
		out, err := exec.Command("ldd", program).CombinedOutput()
		if err != nil {
			t.Fatalf("ldd %s: %v: %s", program, err, out)
		}
		for _, found := range library.FindAllSubmatch(out, -1) {
			copies[string(found[1])] = string(found[1])
		}
	}
}

// makeCgroup makes a control group below our own, which systemd sees as the root.
func makeCgroup(t *testing.T) string {
	t.Helper()
	mounts, err := mountpoints()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(mounts, func(m mountpoint) bool { return m.kind == "cgroup2" })
	if i < 0 {
		t.Skip("SKIPPED: no cgroup2 is mounted here")
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut("\n"+string(text), "\n0::")
	own, _, _ = strings.Cut(own, "\n")
	dir, err := os.MkdirTemp(filepath.Join(mounts[i].at, own), "sockmgr-test-") //nolint:usetesting // a control group is made where the kernel has them
	if err != nil {
		t.Skipf("SKIPPED: no control group can be made: %v", err)
	}
	return dir
}

// checkNothingLeft removes the control groups, which the kernel refuses while a
// process is in one.
func (s *sandbox) checkNothingLeft(t *testing.T) {
	t.Helper()
	var groups []string
	err := filepath.WalkDir(s.cgroup, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	slices.Reverse(groups) // the ones inside first
	for _, group := range groups {
		left, readErr := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if len(left) > 0 {
			t.Errorf("processes are left in %s: %s", group, left)
		}
		err = errors.Join(err, readErr, unix.Rmdir(group))
	}
	if err != nil {
		t.Errorf("removing the control groups: %v", err)
	}
}

// terminal is what systemd takes for the console.
type terminal struct {
	slave  string
	master *os.File

	mu   sync.Mutex
	said bytes.Buffer
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("open /dev/ptmx", err))
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	if err != nil {
		t.Fatal(errors.Join(err, unix.Close(fd)))
	}
	c := &terminal{slave: "/dev/pts/" + strconv.Itoa(n)}
	// While somebody has it open the master never hears a hang-up.
	keep, err := os.OpenFile(c.slave, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(errors.Join(err, unix.Close(fd)))
	}
	c.master = os.NewFile(uintptr(fd), "/dev/ptmx")
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(c, c.master) })
	t.Cleanup(func() {
		_ = c.master.Close()
		reader.Wait()
		_ = keep.Close()
	})
	return c
}

func (c *terminal) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(p)
}

func (c *terminal) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(c.said.String(), "\r\n", "\n")
}
