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

	workloads []string // of the case profile

	reference string // a program to measure beside: perf's cref; empty: what the bench has
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
		cfg           = config{sizes: scaleSizes(1000, 5000, 10_000, 19_000)}
		secs          float64
		cases, detail string
	)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&cfg.rounds, "rounds", 5, "rounds of each case; the report gives medians")
	flags.Float64Var(&secs, "secs", 1, "seconds measured in a round, for each server")
	flags.StringVar(&cfg.daemon, "daemon", "bin/sockmgr", "the daemon; empty measures the Go net server alone")
	flags.StringVar(&cases, "cases", "all", "comma-separated: "+strings.Join(caseNames(), ",")+"; with --peers: "+strings.Join(workloadNames(), ","))
	flags.DurationVar(&cfg.hold, "hold", 5*time.Second, "cases scale and rest: how long a daemon that does nothing is watched")
	flags.StringVar(&detail, "workloads", "", "case profile: comma-separated, only these: "+strings.Join(profiledNames(), ","))
	flags.StringVar(&cfg.reference, "reference", "", "a server to measure beside, called as PROGRAM echo|http|fwd|udp|udpfwd PORT [BACKEND] in profile and with --peers, as PROGRAM listeners COUNT in apply")
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
	if cfg.workloads = profiledNames(); detail != "" {
		cfg.workloads = strings.Split(detail, ",")
	}
	cfg.cases = strings.Split(cases, ",")
	if cases == "all" {
		cfg.cases = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == profileCase })
	}
	for _, name := range cfg.cases {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("no case %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	for _, name := range cfg.workloads {
		if !slices.Contains(profiledNames(), name) {
			return nil, fmt.Errorf("no workload %q; there are %s", name, strings.Join(profiledNames(), ", "))
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
	for _, c := range singleCases {
		if !slices.Contains(cfg.cases, c.name) || cfg.daemon == "" && !c.alone {
			continue
		}
		if err := c.run(cfg, ctx, out, cpus); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// A singleCase measures one thing in its own way.
type singleCase struct {
	name  string
	run   func(*config, context.Context, *report, cpuPair) error
	alone bool // says something without the daemon too
}

var singleCases = []singleCase{
	{name: idleCase, run: (*config).idle, alone: true},
	{name: restCase, run: (*config).rest},
	{name: controlCase, run: (*config).control},
	{name: contentionCase, run: (*config).contention},
	{name: collectCase, run: (*config).collect},
	{name: crowdCase, run: (*config).crowd},
	{name: loopsCase, run: (*config).loops},
	{name: scaleCase, run: (*config).scale},
	{name: applyCase, run: (*config).apply},
	{name: openCloseCase, run: (*config).openClose},
	{name: profileCase, run: (*config).profile},
}

// caseNames are those of all cases. "all" leaves the profile out, for which a tool is
// needed that few have.
func caseNames() []string {
	var names []string
	for _, c := range trafficCases {
		names = append(names, c.name)
	}
	for _, c := range singleCases {
		names = append(names, c.name)
	}
	return names
}
