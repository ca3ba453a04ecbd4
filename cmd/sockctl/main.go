// Command sockctl is the client of sockmgr.
package main

import (
	"context"
	"os"
	"os/signal"
	"time"

	"golang.org/x/term"

	"github.com/sockmgr/sockmgr/cmd/sockctl/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	// The first Ctrl-C is an orderly end, the second is the default: at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, cli.Env{
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		Getenv:     os.Getenv,
		Now:        time.Now,
		UID:        os.Getuid(),
		IsTerminal: term.IsTerminal(int(os.Stdin.Fd())),
	}, os.Args[1:]))
}
