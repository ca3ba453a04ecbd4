package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/sockmgr/sockmgr/cmd/sockmgr/supervise"
	"github.com/sockmgr/sockmgr/internal/fdstore"
)

// superviseMain reads the flags as the daemon will, so that what is wrong with
// them is told once, and supervises it.
func superviseMain(args []string, given []fdstore.Returned, stdout, stderr io.Writer) int {
	c, err := readConfig(args, os.Getenv, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case errors.Is(err, errVersion):
		return Main([]string{"--version"}, stdout, stderr)
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "Error: %v\n  try  sockmgr --help\n", err)
		return 2
	}
	program, err := os.Executable()
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "Error: which program is this: %v\n", err)
		return 1
	}
	return supervise.Run(supervise.Config{
		Program: program, Args: append([]string{os.Args[0]}, args...), Handover: handoverPaths(c.Control), Given: given, Log: stderr,
	})
}
