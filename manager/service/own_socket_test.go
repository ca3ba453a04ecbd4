//go:build linux

package service

import (
	"errors"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/manager/access"
)

// A socket of this process is known as such while its descriptor gets another
// number, a lower or a higher one, and one that nobody has is not. What is not to be
// found out is refused.
func TestOwnSocketIsKnownWhileItMoves(t *testing.T) {
	var own identify
	for range 100 { // to be looked through
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	missed := 0
	for n := range 1000 {
		free, errFree := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		var st unix.Stat_t
		if err = errors.Join(err, errFree, unix.Fstat(fd, &st)); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			_ = unix.Close(free)
		}
		moved := make(chan int)
		go func() {
			to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			_ = unix.Close(fd)
			moved <- to
		}()
		if !errors.Is(own.ownSocket(st.Ino), errOwn) {
			missed++
		}
		_ = unix.Close(<-moved)
		if n%2 == 1 {
			_ = unix.Close(free)
		}
		if n == 0 {
			if err := own.ownSocket(st.Ino); err != nil {
				t.Errorf("nobody has it, and it is refused: %v", err)
			}
		}
	}
	if missed > 0 {
		t.Errorf("%d of 1000 were missed", missed)
	}

	gone := identify{former: []access.Process{{PID: math.MaxInt32}}}
	if err := gone.ownSocket(1); err != nil {
		t.Errorf("the process before has ended, and yet: %v", err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := own.ownSocket(1)
	if errReset := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); errReset != nil {
		t.Fatal(errReset)
	}
	if !errors.Is(err, unix.EMFILE) || errors.Is(err, errOwn) {
		t.Errorf("nothing is to be found out without a descriptor: %v", err)
	}
}
