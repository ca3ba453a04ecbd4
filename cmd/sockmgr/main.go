// Command sockmgr is the daemon: it keeps listening sockets under a live gRPC
// API. Its client is sockctl.
package main

import (
	"os"

	"github.com/sockmgr/sockmgr/cmd/sockmgr/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:], os.Stdout, os.Stderr)) }
