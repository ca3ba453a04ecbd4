// Command soak loads a supervised daemon with everything at once, changes it all
// the time, kills it, and looks at what the clients met and at what the daemon
// has left when all is over.
//
//	load       TCP echo, HTTP with keep-alive, forward, UDP echo, Unix echo, sockets of SocketService,
//	           watchers of events
//	changes    create, stop, start, delete, apply, tune, pause, resume, drain, new addresses
//	kills      kill -9 of the daemon, and upgrades, in the first part of the time
//
// No connect may be refused or time out, no byte may be another, what was
// acknowledged must be so after a kill, a connection may be lost only by a kill,
// and in the end descriptors, goroutines and memory are what they were. It is on
// loopback only, in a directory of its own, and ends only what it has started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	bin          string
	length       time.Duration
	seed         uint64
	killEvery    time.Duration
	upgradeEvery time.Duration
	pace         time.Duration
	keep         bool
}

func main() {
	err := run(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	var c config
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.StringVar(&c.bin, "bin", "bin", "the directory of sockmgr and sockctl")
	flags.DurationVar(&c.length, "for", 2*time.Minute, "how long")
	flags.Uint64Var(&c.seed, "seed", 0, "of what is chosen by chance; 0 takes one")
	flags.DurationVar(&c.killEvery, "kill-every", 5*time.Second, "time between kills, on the average; 0 kills nobody")
	flags.DurationVar(&c.upgradeEvery, "upgrade-every", 8*time.Second, "time between upgrades, on the average; 0 upgrades nobody")
	flags.DurationVar(&c.pace, "pace", 4*time.Millisecond, "time between two operations of one worker")
	flags.BoolVar(&c.keep, "keep", false, "keep the directory with the log and the state")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || c.length < 10*time.Second || c.pace <= 0 || min(c.killEvery, c.upgradeEvery) < 0 {
		return errors.New("want --for of 10s or more, --pace above 0, --kill-every and --upgrade-every of 0 or more, and no arguments")
	}
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return soak(ctx, c, out)
}
