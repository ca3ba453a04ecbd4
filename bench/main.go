// Command bench measures the daemon beside a goroutine-per-connection Go net
// server, in the same run, round by round in turn, so that what the machine
// does at the moment falls on both alike. Only the ratios mean something on
// another day or another machine.
//
// Each server is a process of its own on one CPU; the load comes from one
// thread on another: a closed loop on non-blocking sockets that never sleeps.
// All traffic stays on 127.0.0.1, every load is bounded in time, and every
// process started is stopped by its pid.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	rounds int
	window time.Duration
	daemon string
	cases  []string
}

func main() {
	// The thread that starts servers must live as long as they do (their
	// death signal is tied to it), and it is the one that makes load.
	runtime.LockOSThread()
	err := run(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == netServerCommand {
		return serveNet(os.Stdin, out)
	}
	if len(args) > 0 && args[0] == pinCommand {
		return pinAndExec(args[1:])
	}
	cfg, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &report{w: out}
	return errors.Join(cfg.run(ctx, r), r.err)
}

func parse(args []string) (*config, error) {
	var (
		cfg   config
		secs  float64
		cases string
	)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&cfg.rounds, "rounds", 5, "rounds of each case; the report gives medians")
	flags.Float64Var(&secs, "secs", 1, "seconds measured in a round, for each server")
	flags.StringVar(&cfg.daemon, "daemon", "bin/sockmgr", "the daemon; empty measures the Go net server alone")
	flags.StringVar(&cases, "cases", "all", "comma-separated: "+strings.Join(caseNames(), ","))
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || cfg.rounds < 1 || secs < 0.05 || secs > 60 {
		return nil, fmt.Errorf("want --rounds >= 1, 0.05 <= --secs <= 60 and no arguments")
	}
	cfg.window = time.Duration(secs * float64(time.Second))
	cfg.cases = strings.Split(cases, ",")
	if cases == "all" {
		cfg.cases = caseNames()
	}
	for _, name := range cfg.cases {
		if !slices.Contains(caseNames(), name) {
			return nil, fmt.Errorf("no case %q; there are %s", name, strings.Join(caseNames(), ", "))
		}
	}
	return &cfg, nil
}

// run runs the cases in the order in which they are listed.
func (cfg *config) run(ctx context.Context, out *report) error {
	cpus, err := takeCPUs()
	if err != nil {
		return err
	}
	var traffic []trafficCase
	for _, c := range trafficCases {
		if slices.Contains(cfg.cases, c.name) {
			traffic = append(traffic, c)
		}
	}
	printMachine(out, cpus)
	if len(traffic) > 0 {
		if err := cfg.traffic(ctx, out, cpus, traffic); err != nil {
			return err
		}
	}
	if slices.Contains(cfg.cases, idleCase) {
		if err := cfg.idle(ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", idleCase, err)
		}
	}
	if slices.Contains(cfg.cases, controlCase) && cfg.daemon != "" {
		if err := cfg.control(ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", controlCase, err)
		}
	}
	return nil
}

func caseNames() []string {
	var names []string
	for _, c := range trafficCases {
		names = append(names, c.name)
	}
	return append(names, idleCase, controlCase)
}
