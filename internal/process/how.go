package process

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// How is how a process has ended: its exit code, which is that of a shell for one
// that was killed, and in words.
func How(status unix.WaitStatus) (code int, how string) {
	if status.Signaled() {
		return 128 + int(status.Signal()), "was killed: " + status.Signal().String()
	}
	return status.ExitStatus(), "ended with exit code " + strconv.Itoa(status.ExitStatus())
}
