// Package control knows where the daemon's control socket is.
package control

import (
	"fmt"
	"path/filepath"
)

// Address is where the daemon of that user listens unless it is told otherwise.
func Address(getenv func(string) string, uid int) string {
	if uid == 0 {
		return "unix:///run/sockmgr/control.sock"
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return "unix://" + filepath.Join(dir, "sockmgr", "control.sock")
	}
	return fmt.Sprintf("unix:///tmp/sockmgr-%d/control.sock", uid)
}
