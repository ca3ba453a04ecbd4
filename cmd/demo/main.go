// Command demo shows sockmgr at work. `make demo` runs it: it starts a daemon
// of its own, opens listeners with sockctl, sends bytes through them, changes
// one while it runs, and takes everything away again.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	// Nobody reads on: a write fails, and what was started is taken away.
	signal.Ignore(syscall.SIGPIPE)
	// A terminal that closes sends SIGHUP, more than once.
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	// The first signal is an orderly end, the second is the default: at once.
	context.AfterFunc(ctx, stop)
	bin := os.Getenv("DEMO_BIN")
	if bin == "" {
		bin = "bin"
	}
	os.Exit(run(ctx, config{
		out:  os.Stdout,
		bin:  bin,
		port: os.Getenv("DEMO_PORT"),
		stay: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())),
	}))
}
