//go:build linux

package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(planEnv); path != "" {
		log.Fatal(becomeSystemd(path))
	}
	m.Run()
}

// sandbox is a systemd in namespaces of its own: mounts, processes, network,
// names, IPC, and a control group of ours.
type sandbox struct {
	pid    int // of its first process, as the host has it
	cgroup string
	log    *terminal
	ended  chan struct{}
}

// startSandbox runs systemd with the units and files of p until the test ends, or
// limit is over. All of it ends with the thread that this is called from.
func startSandbox(ctx context.Context, t *testing.T, p plan) *sandbox {
	t.Helper()
	needSandbox(t)
	dir := t.TempDir()
	p.Root, p.Sentinel = filepath.Join(dir, "root"), filepath.Join(dir, "sentinel")
	p.HostDevs = hostDevices(t)
	addPrograms(t, p.Copies, systemdProgram, systemctlProgram)
	p.Args = []string{"--system", "--unit=sandbox.target", "--log-target=console", "--log-level=info", "--log-color=no", "--show-status=no"}
	p.Texts["etc/machine-id"] = "5f2d0ae14e9d4b6f8a7c3f5e1d2c4b6a\n" // or else systemd thinks that it is there for the first time
	s := &sandbox{log: openTerminal(t), ended: make(chan struct{}), cgroup: makeCgroup(t)}
	p.Console = s.log.slave
	text, err := json.Marshal(p)
	err = errors.Join(err, os.Mkdir(p.Root, 0o700), os.WriteFile(p.Sentinel, nil, 0o600), os.WriteFile(filepath.Join(dir, "plan"), text, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	group, err := os.Open(s.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// It is there longer than ctx, so that what it logged can be read, and not for ever.
	living, end := context.WithTimeout(context.WithoutCancel(ctx), limit+10*time.Second)
	cmd := exec.CommandContext(living, program)
	cmd.Env = append(os.Environ(), planEnv+"="+filepath.Join(dir, "plan"))
	var refused bytes.Buffer
	cmd.Stderr = &refused
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:   syscall.SIGKILL, // and the kernel ends all others of the namespace
		UseCgroupFD: true, CgroupFD: int(group.Fd()),
		Setsid: true,
	}
	runtime.LockOSThread() // Pdeathsig means this thread
	if err := cmd.Start(); err != nil {
		end()
		t.Fatal(errors.Join(err, unix.Rmdir(s.cgroup)))
	}
	s.pid = cmd.Process.Pid
	go func() {
		defer close(s.ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // never a shutdown: that is what this systemd is not to try
		<-s.ended
		end()
		runtime.UnlockOSThread()
		s.checkNothingLeft(t)
		if t.Failed() {
			t.Logf("the first process said:\n%s\nsystemd said:\n%s", refused.String(), s.log.text())
		}
	})
	s.until(ctx, t, "systemd is there", func() bool {
		_, err := os.Lstat(s.path("/run/systemd/private"))
		return err == nil
	})
	return s
}

// needSandbox skips where there is no right or no systemd to do it.
func needSandbox(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: namespaces and a systemd in them need root; go test ./cmd/sockctl -run TestKillRefusesNobody speaks the same protocol without")
	}
	for _, program := range []string{systemdProgram, systemctlProgram} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("SKIPPED: there is no systemd here: %v", err)
		}
	}
	for _, program := range []string{"ldd", "nsenter", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: there is no program %s here", program)
		}
	}
}

// hostDevices are those of all that is mounted here.
func hostDevices(t *testing.T) []uint64 {
	t.Helper()
	mounts, err := mountpoints()
	if err != nil {
		t.Fatal(err)
	}
	var all []uint64
	for _, m := range mounts {
		all = append(all, m.dev)
	}
	for _, dir := range []string{"/", "/tmp", "/var", "/run", "/home", t.TempDir()} { // btrfs tells others than mountinfo does
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil {
			all = append(all, st.Dev)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
