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
		Screen:     screen(),
	}, os.Args[1:]))
}

// screen is standard output, where that is a terminal. Keys are read from
// standard input where that is one too.
func screen() *cli.Screen {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if !term.IsTerminal(out) {
		return nil
	}
	s := &cli.Screen{Size: func() (int, int, error) { return term.GetSize(out) }}
	if term.IsTerminal(in) {
		s.Keys = func() (func() error, error) {
			old, err := term.MakeRaw(in)
			return func() error { return term.Restore(in, old) }, err
		}
	}
	return s
}
