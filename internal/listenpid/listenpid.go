// Package listenpid starts programs that know socket activation: such a program
// looks whether LISTEN_PID is its own pid, which nobody knows before it is there.
// So this very executable is run first, under a name that nobody else gives it:
// it learns its pid, and becomes the program.
package listenpid

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// Variable is the name of the variable that it sets.
const Variable = "LISTEN_PID"

// SelfPath is this very executable, also when the file was replaced.
const SelfPath = "/proc/self/exe"

const tellerName = "[sockmgr: about to run a program]"

// Wrap returns what is to be run instead of program with argv.
func Wrap(program string, argv []string) (self string, wrapped []string) {
	return SelfPath, append([]string{tellerName, program}, argv...)
}

// It is done in init, so that it works in whatever is linked with this package,
// and before anything else of that has begun.
func init() {
	if len(os.Args) < 3 || os.Args[0] != tellerName {
		return
	}
	env := append(os.Environ(), Variable+"="+strconv.Itoa(os.Getpid()))
	err := syscall.Exec(os.Args[1], os.Args[2:], env)
	fmt.Fprintf(os.Stderr, "cannot run %s: %v\n", os.Args[1], err)
	os.Exit(127) //nolint:forbidigo // it is the whole program
}
