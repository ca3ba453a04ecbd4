package listeners

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// RemoveStale takes away what is at the path of a, if that is a socket on
// which nobody answers: what a process leaves behind that was killed. Anything
// else stays, and is an error.
//
// Two processes may do this at once, and the second must not take away what
// the first has bound meanwhile. So the path is first renamed, which only one
// of them can do, and what was caught is looked at again.
func RemoveStale(a Address) error {
	var found, caught unix.Stat_t
	switch err := unix.Lstat(a.Path, &found); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return bindFault(a, err)
	case found.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return &Fault{
			Reason: AddressInUse, Err: os.NewSyscallError("bind", unix.EADDRINUSE),
			Message: fmt.Sprintf("%v is in use (EADDRINUSE): there is a file that is not a socket, and it stays", a),
			Fix:     "take another path, or remove the file yourself", Meta: map[string]string{"address": a.String()},
		}
	}
	if answers(a) {
		return inUse(a)
	}
	aside := fmt.Sprintf("%s.stale.%d", a.Path, os.Getpid())
	if err := unix.Rename(a.Path, aside); err != nil {
		if err == unix.ENOENT {
			return nil // another was quicker
		}
		return bindFault(a, err)
	}
	if err := unix.Lstat(aside, &caught); err == nil && (caught.Dev != found.Dev || caught.Ino != found.Ino) {
		// It is the other's new socket: put it back, unless a third is there.
		return errors.Join(inUse(a), os.NewSyscallError("rename", unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, a.Path, unix.RENAME_NOREPLACE)))
	}
	return os.NewSyscallError("unlink", unix.Unlink(aside))
}

// lockDirectory keeps those who want the same path apart: what one of them has
// bound, and does not listen on yet, looks stale to the others. It waits for a
// second at most: who has the lock for longer is not one of us. Without leave
// to read the directory it does not lock.
func lockDirectory(path string) (unlock func()) {
	fd, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {} // what is wrong with it, bind tells
	}
	wait := time.NewTicker(time.Millisecond)
	defer wait.Stop()
	for range 1000 {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			break
		}
		<-wait.C
	}
	return func() { _ = unix.Close(fd) }
}

// chmodPath gives the path of the socket its mode; the first time it notes which
// file it is. Who can write to the directory may put a link there meanwhile: that
// is not followed, and what is no socket keeps its mode.
func (s *socket) chmodPath(mode os.FileMode) error {
	fd, err := unix.Open(s.addr.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: s.addr.Path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || s.ino != 0 && (st.Dev != s.dev || st.Ino != s.ino) {
		return &os.PathError{Op: "chmod", Path: s.addr.Path, Err: unix.ENOENT} // it is another file by now
	}
	s.dev, s.ino = st.Dev, st.Ino
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(mode)); err != nil { // fchmod takes no such descriptor
		return &os.PathError{Op: "chmod", Path: s.addr.Path, Err: err}
	}
	return nil
}

// pathMode returns the permissions of the socket's path. When the path is
// gone, or is not this socket's any more, that is ENOENT.
func (s *socket) pathMode() (os.FileMode, error) {
	var st unix.Stat_t
	err := unix.Lstat(s.addr.Path, &st)
	if err == nil && (st.Dev != s.dev || st.Ino != s.ino) {
		err = unix.ENOENT
	}
	if err != nil {
		return 0, &os.PathError{Op: "lstat", Path: s.addr.Path, Err: err}
	}
	return os.FileMode(st.Mode & 0o777), nil
}

// answers reports whether a process has the socket at the path of a.
func answers(a Address) bool {
	for _, kind := range []int{a.Network.kind().sock, unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return true // it cannot be told, so it stays
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: a.Path})
		_ = unix.Close(fd)
		if err == unix.EPROTOTYPE {
			continue // a socket of another type answers
		}
		// Refused is also who is bound and does not listen yet.
		return err != unix.ECONNREFUSED || len(boundInodes(a)) > 0
	}
	return true
}
