package cli

import (
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// What docs/gen makes the reference from.

// Commands returns the tree of commands. It is for reading, not for running.
func Commands() *cobra.Command { return (&app{output: "table"}).rootCommand() }

// ExitCode returns what sockctl exits with when a call ends with c.
func ExitCode(c codes.Code) int { return failf(c, "").exit }
