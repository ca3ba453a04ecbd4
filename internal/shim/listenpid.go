package shim

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// A program that knows socket activation looks whether LISTEN_PID is its own
// pid, which nobody knows before it is there.

// Variable is the name of the variable.
const Variable = "LISTEN_PID"

// SelfPath is this very executable, also when the file was replaced.
const SelfPath = "/proc/self/exe"

const tellerName = "[sockmgr: about to run a program]"

// Wrap returns what is to be run instead of program with argv, so that it has
// LISTEN_PID. All else it has from who starts it: sockctl exec runs programs as
// its own user, and the supervisor runs the daemon.
func Wrap(program string, argv []string) (self string, wrapped []string) {
	return SelfPath, append([]string{tellerName, program}, argv...)
}

// It is done in init, so that it works in whatever is linked with this package,
// and before anything else of that has begun. The goroutine is locked to the
// main thread meanwhile, so what is said of a thread is said of the program.
func init() {
	switch {
	case len(os.Args) >= 3 && os.Args[0] == tellerName:
		err := syscall.Exec(os.Args[1], os.Args[2:], append(os.Environ(), Variable+"="+strconv.Itoa(os.Getpid())))
		fmt.Fprintf(os.Stderr, "cannot run %s: %v\n", os.Args[1], err)
	case len(os.Args) == 2 && os.Args[0] == shimName:
		become(os.Args[1])
	default:
		return
	}
	os.Exit(127) //nolint:forbidigo // it is the whole program
}
