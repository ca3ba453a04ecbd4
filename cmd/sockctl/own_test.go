//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/internal/handover"
	"github.com/sockmgr/sockmgr/internal/shim"
)

// inode is that of a path.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	return st.Ino
}

// Who calls the daemon between its end by kill -9 and the next one is not
// refused: all addresses that it answers on itself are kept, and ports that the
// kernel chose stay.
func TestKillKeepsTheControlAddresses(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, dir, "--control", "tcp://127.0.0.1:0", "--insecure-loopback", "--metrics", "127.0.0.1:0", "--log-level", "info")
	conn := s.api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	info, err := pb.NewDaemonServiceClient(conn).GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	tcp := info.GetInfo().GetControl()[1]
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`).FindString(string(text))
	control, beside := filepath.Join(dir, "c"), handover.Path(filepath.Join(dir, "c"))
	before := [2]uint64{inode(t, control), inode(t, beside)}
	waitForCopies(t, s.cmd.Process.Pid, 4)

	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // no daemon is started
		t.Fatal(err)
	}
	if err := syscall.Kill(int(info.GetInfo().GetPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitForEnd(t, int(info.GetInfo().GetPid()))
	var waiting []net.Conn
	for _, to := range [][2]string{{"unix", control}, {"tcp", tcp.GetUri()[len("tcp://"):]}, {"unixpacket", beside}} {
		c, err := net.Dial(to[0], to[1])
		if err != nil {
			t.Error("nobody waits for the next daemon:", err)
			continue
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, c := range waiting[:min(2, len(waiting))] { // HTTP/2 begins with what the server sends
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, make([]byte, 9)); err != nil {
			t.Error(c.RemoteAddr(), "did not answer who waited:", err)
		}
		_ = c.Close()
	}
	over, err := grpc.NewClient(tcp.GetUri()[len("tcp://"):], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if pid := daemonPid(ctx, t, over); pid == int(info.GetInfo().GetPid()) {
		t.Errorf("the daemon is pid %d still", pid)
	}
	response, err := http.Get(url) //nolint:noctx // of this host
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Error(url, response.Status)
	}
	if after := [2]uint64{inode(t, control), inode(t, beside)}; after != before {
		t.Errorf("the paths are other ones: %v, not %v", after, before)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = s.cmd.Wait()
	if took := time.Since(began); took > 5*time.Second { // it waited for 10 s for what the caller beside has to say
		t.Error("the end took", took)
	}
	for _, path := range []string{control, beside} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Error("a daemon that was told to end leaves", path, err)
		}
	}
}

// waitForEnd waits until a process is gone, or a zombie.
func waitForEnd(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
		switch {
		case n == 1:
			return
		case !errors.Is(err, unix.EINTR):
			t.Fatal("it does not end", err)
		}
	}
}

// A control socket that systemd hands over stays systemd's: its mode, and its
// path, which outlives the daemon.
func TestAdoptsTheControlSocketOfSystemd(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/c", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(dir+"/c", 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := inode(t, dir+"/c")
	conn := (&supervised{dir: dir}).api(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var pids []int
	for range 2 {
		program, err := exec.LookPath("sockmgr")
		if err != nil {
			t.Fatal(err)
		}
		self, argv := shim.Wrap(program, []string{"sockmgr", "--control", "unix://" + dir + "/c", "--state", "memory", "--log-level", "warn"})
		pid, err := syscall.ForkExec(self, argv, &syscall.ProcAttr{
			Env: append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=sockmgr.socket", "GORACE=atexit_sleep_ms=0"), Files: []uintptr{0, 2, 2, f.Fd()},
		})
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, daemonPid(ctx, t, conn)) // it waited in the queue the second time
		_ = syscall.Kill(pid, syscall.SIGTERM)
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
			t.Error("ended badly:", err, status)
		}
		if got := inode(t, dir+"/c"); got != before {
			t.Error("the path is another")
		}
	}
	if fi, err := os.Lstat(dir + "/c"); err != nil || fi.Mode().Perm() != 0o600 || pids[0] == pids[1] {
		t.Error(fi, err, pids)
	}
}
