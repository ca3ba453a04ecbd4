package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sockmgr/sockmgr/listeners"
)

// programOf is the program that is to be run, by the path that it really has, so
// that what is run is what was looked at. It becomes the daemon, so nobody else
// may have a hand in it.
func programOf(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("which program is this: %w", err)
		}
		path = strings.TrimSuffix(self, " (deleted)")
	}
	if !filepath.IsAbs(path) {
		return "", &listeners.Violation{Field: "executable", Message: fmt.Sprintf("%.200q is not an absolute path", path)}
	}
	program, err := filepath.EvalSymlinks(path)
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err
	}
	if err == nil {
		err = trustProgram(program)
	}
	if err != nil {
		return "", &listeners.Fault{
			Reason: listeners.UpgradeFailed, Message: fmt.Sprintf("cannot run %s: %v; the daemon goes on as before", path, err),
			Meta: map[string]string{"executable": path},
		}
	}
	return program, nil
}

// trustProgram refuses a program that others than root and the daemon's own user
// could change, or put another one in the place of.
func trustProgram(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	if !fi.Mode().IsRegular() {
		return errors.New("it is not a file")
	}
	if why := writers(fi); why != "" {
		return fmt.Errorf("it %s", why)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if fi, err = os.Stat(dir); err != nil {
			return err
		}
		if why := writers(fi); why != "" {
			return fmt.Errorf("its directory %s %s", dir, why)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// writers says who else could change a file, or what is in a directory; empty:
// nobody. In one with the sticky bit (/tmp) everybody changes what is his.
func writers(fi os.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	mode := fi.Mode()
	switch {
	case ok && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Sprintf("belongs to another user (uid %d), who could change it", st.Uid)
	case mode.IsDir() && mode&os.ModeSticky != 0:
		return ""
	case mode.Perm()&0o022 != 0:
		return fmt.Sprintf("may be written by others (mode %04o): chmod go-w it", mode.Perm())
	}
	return ""
}
