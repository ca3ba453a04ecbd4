package listeners

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// A program that is given listening sockets looks whether LISTEN_PID is its own
// pid, which nobody knows before it is there. So this very executable is run
// first, under a name that nobody else gives it: it learns its pid, and becomes
// the program.

const (
	listenPID  = "LISTEN_PID"
	tellerName = "[sockmgr: about to run a program]"
	selfPath   = "/proc/self/exe" // also when the file was replaced
)

// pidTeller wraps a command.
func pidTeller(command []string) (program string, argv []string) {
	return selfPath, append([]string{tellerName, command[0]}, command...)
}

// It is done in init, so that it works in whatever is linked with this package,
// and before anything else of that has begun.
func init() {
	if len(os.Args) < 3 || os.Args[0] != tellerName {
		return
	}
	env := append(os.Environ(), listenPID+"="+strconv.Itoa(os.Getpid()))
	err := syscall.Exec(os.Args[1], os.Args[2:], env)
	fmt.Fprintf(os.Stderr, "cannot run %s: %v\n", os.Args[1], err)
	os.Exit(127) //nolint:forbidigo // it is the whole program
}
