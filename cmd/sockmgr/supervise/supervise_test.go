package supervise

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func FuzzParse(f *testing.F) {
	f.Add("FDSTORE=1\nFDPOLL=0\nFDNAME=web@1f.0.0")
	f.Add("FDSTOREREMOVE=1\nFDNAME=web@1f.0.0")
	f.Add("BARRIER=1")
	f.Add("READY=1\nSTATUS=ok\nMAINPID=1")
	f.Add("FDNAME=a:b\nFDNAME=\nFDNAME=\x00")
	f.Fuzz(func(t *testing.T, text string) {
		m := parse(text)
		if !isName(m.name) || strings.ContainsAny(m.name, ":\n\x00") {
			t.Errorf("%q gives the name %q, which LISTEN_FDNAMES cannot have", text, m.name)
		}
	})
}

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
	s := &supervisor{Config: Config{Log: io.Discard}, lines: make(chan string, 64)}
	s.store.most = 3
	d := &daemon{pid: os.Getpid()}
	told := func(pid int, text string, files ...int) {
		s.act(d, notice{message: parse(text), files: files, pid: int32(pid)})
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
	if files, names := s.store.files(); len(files) != 3 || names != "given:a:b" {
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
	if _, names := s.store.files(); isOpen(pipe[1]) || isOpen(a) || names != "given:b" {
		t.Errorf("after a removal %s are kept", names)
	}
	told(d.pid, "READY=1\nSTATUS=whatever")
	told(d.pid, "STOPPING=1")
	if _, names := s.store.files(); !d.ready || !d.stopping || names != "given" {
		t.Errorf("at the end %s are kept", names)
	}
	_, _ = unix.Close(pipe[0]), unix.Close(c)
}
