package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sockmgr/sockmgr/listeners"
)

// listenControl binds a control address. The socket, and its directory if that
// has to be made, are for the daemon's own user only.
func listenControl(uri string) (net.Listener, error) {
	path := strings.TrimPrefix(uri, "unix://")
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--control %s: %w", uri, err)
	}
	if err := checkDir(dir); err != nil {
		return nil, fmt.Errorf("--control %s: %w", uri, err)
	}
	address, err := listeners.ParseAddress(uri)
	if err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	if err := listeners.RemoveStale(address); err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	old := syscall.Umask(0o177) // the path never has more than 0600
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("--control %s: %w", uri, err)
	}
	return l, nil
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
