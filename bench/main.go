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

	sizes []int         // of the case scale
	hold  time.Duration // how long it is watched doing nothing

	reference string // of the case apply: perf's cref; empty: openBare
	stateIn   string // where it has its stores; empty: os.TempDir

	beside       bool   // of peers, instead of the cases
	json, report string // files for what came of that; empty: none
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
		return serveNet(args[1:], os.Stdin, out)
	}
	if len(args) > 0 && args[0] == pinCommand {
		return pinAndExec(args[1:])
	}
	if len(args) > 1 && args[0] == emptyCommand {
		return serveEmpty(args[1], os.Stdin, out)
	}
	if len(args) > 1 && args[0] == bareCommand {
		return openSockets(args[1:], out)
	}
	if len(args) > 3 && args[0] == callersCommand {
		return callDaemon(args[1:], out)
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
		cfg   = config{sizes: scaleSizes(1000, 5000, 10_000, 19_000), hold: 5 * time.Second}
		secs  float64
		cases string
	)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&cfg.rounds, "rounds", 5, "rounds of each case; the report gives medians")
	flags.Float64Var(&secs, "secs", 1, "seconds measured in a round, for each server")
	flags.StringVar(&cfg.daemon, "daemon", "bin/sockmgr", "the daemon; empty measures the Go net server alone")
	flags.StringVar(&cases, "cases", "all", "comma-separated: "+strings.Join(caseNames(), ",")+"; with --peers: "+strings.Join(workloadNames(), ","))
	flags.StringVar(&cfg.reference, "reference", "", "case apply: a program that opens COUNT sockets, called as PROGRAM listeners COUNT, instead of our own")
	flags.StringVar(&cfg.stateIn, "state-in", "", "cases apply and open-close: where stores are made, such as a disk or a tmpfs; empty: the directory for temporary files")
	flags.BoolVar(&cfg.beside, "peers", false, "compare with HAProxy, nginx, socat and a Go net server, whichever is installed")
	flags.StringVar(&cfg.json, "json", "", "with --peers: write the results to this file as JSON")
	flags.StringVar(&cfg.report, "markdown", "", "with --peers: write the results to this file as Markdown")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || cfg.rounds < 1 || secs < 0.05 || secs > 60 {
		return nil, fmt.Errorf("want --rounds >= 1, 0.05 <= --secs <= 60 and no arguments")
	}
	cfg.window = time.Duration(secs * float64(time.Second))
	names := caseNames()
	if cfg.beside {
		names = workloadNames()
	}
	cfg.cases = strings.Split(cases, ",")
	if cases == "all" {
		cfg.cases = names
	}
	for _, name := range cfg.cases {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("no case %q; there are %s", name, strings.Join(names, ", "))
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
	printMachine(out, cpus)
	if cfg.beside {
		res, err := cfg.peers(ctx, out, cpus)
		if err != nil {
			return err
		}
		return res.write(cfg.json, cfg.report)
	}
	var traffic []trafficCase
	for _, c := range trafficCases {
		if slices.Contains(cfg.cases, c.name) {
			traffic = append(traffic, c)
		}
	}
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
	if slices.Contains(cfg.cases, contentionCase) && cfg.daemon != "" {
		if err := cfg.contention(ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", contentionCase, err)
		}
	}
	if slices.Contains(cfg.cases, crowdCase) && cfg.daemon != "" {
		if err := cfg.crowd(ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", crowdCase, err)
		}
	}
	if slices.Contains(cfg.cases, scaleCase) && cfg.daemon != "" {
		if err := cfg.scale(ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", scaleCase, err)
		}
	}
	if slices.Contains(cfg.cases, applyCase) && cfg.daemon != "" {
		if err := cfg.apply(ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", applyCase, err)
		}
	}
	if slices.Contains(cfg.cases, openCloseCase) && cfg.daemon != "" {
		if err := cfg.openClose(ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", openCloseCase, err)
		}
	}
	return nil
}

func caseNames() []string {
	var names []string
	for _, c := range trafficCases {
		names = append(names, c.name)
	}
	return append(names, idleCase, controlCase, contentionCase, crowdCase, scaleCase, applyCase, openCloseCase)
}
