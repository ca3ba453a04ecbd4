package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// listenControl binds a control address. The socket is for the daemon's own user
// and a group, its own unless another is named; what its users may do is another
// matter. A directory that has to be made is for the user only, and for the group
// that is named.
func listenControl(keep *keeper, uri string, group int) (net.Listener, error) {
	return listenPath(keep, controlRole, "unix", uri, group)
}

// listenPath does that for another kind of socket too.
func listenPath(keep *keeper, role, network, uri string, group int) (net.Listener, error) {
	path := strings.TrimPrefix(uri, "unix://")
	dir := filepath.Dir(path)
	if err := makeControlDir(dir, group); err != nil {
		return nil, fmt.Errorf("--control %s: %w", uri, err)
	}
	if err := checkDir(dir); err != nil {
		return nil, fmt.Errorf("--control %s: %w", uri, err)
	}
	address, err := listeners.ParseAddress(network + "://" + path)
	if err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	own, err := keep.listen(role, address, func() (net.Listener, error) { return bindPath(address) })
	if err == nil && !own.foreign {
		err = openTo(path, group, 0o660)
	}
	if err != nil {
		return nil, fmt.Errorf("--control %s: %w", uri, err)
	}
	return own, nil
}

// bindPath makes a socket at a path that nobody answers at. Until the group is
// right the path is the owner's only.
func bindPath(a listeners.Address) (net.Listener, error) {
	if err := listeners.RemoveStale(a); err != nil {
		return nil, err
	}
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.Listen(string(a.Network), a.Path)
}

// openTo gives the socket at a path a group, unless it is -1, and a mode. Who can
// write to the directory, as its group may, could put a link, or a file of the
// daemon's, there meanwhile: a link is not followed, and what is no socket of the
// daemon's user stays as it is.
func openTo(path string, group int, mode uint32) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	switch err := unix.Fstat(fd, &st); {
	case err != nil:
		return os.NewSyscallError("fstat", err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s is not the socket that was bound there: others can write to its directory", path)
	case group >= 0:
		if err := unix.Fchownat(fd, "", -1, group, unix.AT_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "chown", Path: path, Err: err}
		}
	}
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode); err != nil { // fchmod takes no such descriptor
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

// makeControlDir makes what is missing of a directory.
func makeControlDir(dir string, group int) error {
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil || group < 0 {
		return err
	}
	if err := os.Lchown(dir, -1, group); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}

// checkDir refuses a directory below /tmp that another user has made: who owns
// the directory could put a socket of his own in place of ours.
func checkDir(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case ok && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user (uid %d)", dir, st.Uid)
	case fi.Mode().Perm()&0o002 != 0 && fi.Mode()&os.ModeSticky == 0:
		return errors.New(dir + " can be written by everybody: chmod 0700 it")
	}
	return nil
}
