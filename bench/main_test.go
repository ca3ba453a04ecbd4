package main

import (
	"os"
	"testing"

	"github.com/sockmgr/sockmgr/cmd/sockmgr/daemon"
)

// TestMain lets this program be the servers too: they are started as programs of
// their own, by what their first argument is.
func TestMain(m *testing.M) {
	code, first := 0, ""
	if len(os.Args) > 1 {
		first = os.Args[1]
	}
	switch first {
	case pinCommand, netServerCommand, bareCommand, emptyCommand, callersCommand:
		if err := run(os.Args[1:], os.Stdout); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	case "--control":
		code = daemon.Main(os.Args[1:], os.Stdout, os.Stderr)
	default:
		code = m.Run()
	}
	os.Exit(code) //nolint:forbidigo // this is main
}
