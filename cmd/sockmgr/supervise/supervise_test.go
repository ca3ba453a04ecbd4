package supervise

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
)

func open(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// What comes is kept by name, within bounds; what is not kept is closed, whoever
// it came from.
func TestActKeepsAndCloses(t *testing.T) {
	s := &supervisor{Config: Config{Log: io.Discard}, lines: newLines()}
	s.store.most = 3
	d := &daemon{pid: os.Getpid()}
	s.d = d
	told := func(pid int, text string, files ...int) {
		s.act(fdstore.Notice{Message: fdstore.Parse(text), Files: files, PID: int32(pid)})
	}
	a, twice, b, c, over := open(t), open(t), open(t), open(t), open(t)
	dup, err := unix.Dup(a)
	if err != nil {
		t.Fatal(err)
	}
	s.store.put("given", c, true)
	told(d.pid, "FDSTORE=1\nFDNAME=a", a)
	told(d.pid, "FDSTORE=1\nFDNAME=other", dup) // the same socket
	told(d.pid, "FDSTORE=1\nFDNAME=b", b, over)
	told(d.pid+1, "FDSTORE=1\nFDNAME=stranger", twice)
	told(d.pid+1, "FDSTOREREMOVE=1\nFDNAME=a")
	if files, names := s.store.files(); len(files) != 3 || strings.Join(names, ":") != "given:a:b" {
		t.Errorf("%d are kept: %s", len(files), names)
	}
	if !isOpen(a) || !isOpen(b) || isOpen(dup) || isOpen(over) || isOpen(twice) {
		t.Error("a descriptor is closed that is kept, or the other way round")
	}
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	told(d.pid, "BARRIER=1", pipe[1])
	told(d.pid, "FDSTOREREMOVE=1\nFDNAME=a")
	told(d.pid, "FDSTOREREMOVE=1\nFDNAME=given")
	if _, names := s.store.files(); isOpen(pipe[1]) || isOpen(a) || strings.Join(names, ":") != "given:b" {
		t.Errorf("after a removal %s are kept", names)
	}
	told(d.pid, "READY=1\nSTATUS=whatever")
	told(d.pid, "STOPPING=1")
	if _, names := s.store.files(); !d.ready || !d.stopping || strings.Join(names, ":") != "given" {
		t.Errorf("at the end %s are kept", names)
	}
	_, _ = unix.Close(pipe[0]), unix.Close(c)
}

// Files of different kinds may have the same inode number: both are kept.
func TestPutKnowsFilesByDeviceToo(t *testing.T) {
	var st unix.Stat_t
	fd := open(t)
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	s := store{most: 10, byName: map[string][]*stored{}}
	s.here = map[identity]bool{{st.Dev + 1, st.Ino}: true} // a file in memory
	if !s.put("socket", fd, false) {
		t.Error("a socket is not kept that has the inode number of another file")
	}
	s.clear()
}

// takeVariable turns the test into a daemon that says what it was started with.
const takeVariable = "SUPERVISE_TEST_TAKE"

func TestMain(m *testing.M) {
	path := os.Getenv(takeVariable)
	if path == "" {
		m.Run()
		return
	}
	all, long := fdstore.Take()
	var text strings.Builder
	fmt.Fprintln(&text, long, len(all))
	for _, r := range all {
		cookie, _ := unix.GetsockoptUint64(r.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
		fmt.Fprintln(&text, r.Name, cookie)
	}
	_ = os.WriteFile(path, []byte(text.String()), 0o600) // the test misses it
}

// However long the names of what is kept are together, the daemon starts and has
// each descriptor under its name. As one variable they were refused from 128 KiB
// on (E2BIG), so that a daemon with 4,000 listeners never came back.
// SUPERVISE_DESCRIPTORS=5000 is the long form.
func TestStartWithManyNames(t *testing.T) {
	count := 700
	if n, err := strconv.Atoi(os.Getenv("SUPERVISE_DESCRIPTORS")); err == nil {
		count = n
	}
	path := filepath.Join(t.TempDir(), "taken")
	t.Setenv(takeVariable, path)
	s := &supervisor{Config: Config{Program: os.Args[0], Args: os.Args[:1], Log: io.Discard}, lines: newLines()}
	s.store.most = limit()
	var want strings.Builder
	fmt.Fprintln(&want, true, count)
	for i := range count {
		fd := open(t)
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%s%d", strings.Repeat("x", 250-len(strconv.Itoa(i))), i)
		fmt.Fprintln(&want, name, cookie)
		if !s.store.put(name, fd, false) {
			t.Fatalf("descriptor %d is not kept", i)
		}
	}
	began := time.Now()
	d, err := s.start()
	if err != nil {
		t.Fatal(err)
	}
	forked := time.Since(began)
	<-d.ended
	s.d = d
	code, how := s.bury(d)
	t.Logf("%d descriptors, %d bytes of names: the process is there after %v, and has taken all after %v", count, 251*count, forked, time.Since(began))
	if got, err := os.ReadFile(path); code != 0 || err != nil || string(got) != want.String() {
		t.Errorf("the daemon %s, and has:\n%.300s\n%v", how, got, err)
	}
	s.store.clear()
}

// A program that has moved in an upgrade ends as a child of the process before, which
// supervises then: its exit code is not taken for that of a daemon.
func TestProgramThatFailsIsNoDaemon(t *testing.T) {
	for session, want := range map[bool]int{true: 0, false: 7} {
		s := &supervisor{}
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "exit 7"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: session}})
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		if none := s.reap(); !none || s.worst != want {
			t.Errorf("with a session of its own (%v) it counts as %d; nobody is left: %v", session, s.worst, none)
		}
	}
}
