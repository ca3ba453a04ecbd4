package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Env is what a run sees of the world around it.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer // data
	Stderr io.Writer // everything else
	Getenv func(string) string
	Now    func() time.Time
	UID    int
	// IsTerminal says that someone sits at Stdin who can be asked.
	IsTerminal bool
	// Screen is the terminal that Stdout is, nil when it is none.
	Screen *Screen
}

// app is one run: its world, the global flags and the connection they lead to.
type app struct {
	env     Env
	addr    string
	tls     certificates
	output  format
	timeout time.Duration
	client  *client // set by dial
	docs    int     // YAML documents printed

	held  []*failure // with -o json: of parts of the whole
	notes []string   // with -o json, that come with the one object
}

// Run runs one command line, without the program's name, and returns its exit
// code.
func Run(ctx context.Context, env Env, args []string) int {
	a := &app{env: env, output: "table"}
	defer a.close()
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		a.printNotes()
		return exitDone
	}
	if ctx.Err() != nil {
		err = &failure{exit: exitInterrupted, message: "interrupted"}
	}
	f := asFailure(err)
	if f == nil {
		// What is not a failure is cobra's: the line itself is wrong.
		f = usageOf(cmd, err)
		if wantsJSON(args) {
			a.output = "json" // the flag may stand behind the fault
		}
	}
	a.printFailure(a.whole(f))
	a.printNotes()
	return f.exit
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sockctl",
		Short: "Keep listening sockets with sockmgr",
		Long: "sockctl talks to a sockmgr daemon: it makes listeners, tunes them while they run and shows what they do.\n\n" +
			"Exit codes: 0 done or was so already, 1 failed, 2 asked wrongly, 4 no such thing, 5 not allowed,\n" +
			"6 someone was there first, 7 cannot now, 8 no daemon there, 9 time ran out, 10 part done,\n" +
			"12 not known to daemon or kernel, 130 interrupted.",
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // usageOf makes them, in the form of every other hint
	}
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", "", "control address of the daemon (default $SOCKMGR_ADDR, else where a local sockmgr listens)")
	f.StringVar(&a.tls.cert, "cert", "", "certificate `file` for a daemon at tcp://host:port (default $SOCKMGR_CERT)")
	f.StringVar(&a.tls.key, "key", "", "key `file` of --cert (default $SOCKMGR_KEY, else the file of --cert)")
	f.StringVar(&a.tls.ca, "ca", "", "CA `file` that the daemon's certificate must chain to (default $SOCKMGR_CA, else the system's)")
	f.VarP(&a.output, "output", "o", formats)
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "longest wait for one answer; 0 waits for ever")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{"table", "wide", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp)))
	root.AddCommand(
		a.startCommand(), a.stopCommand(), a.pauseCommand(), a.resumeCommand(), a.drainCommand(), a.rmCommand(), a.lsCommand(), a.inspectCommand(), a.tuneCommand(),
		a.applyCommand(), a.diffCommand(), a.exportCommand(),
		a.optionsCommand(), a.connCommand(), a.sockCommand(), a.connectCommand(), a.acceptCommand(),
		a.daemonCommand(), a.eventsCommand(), a.statsCommand(), a.topCommand(), a.waitCommand(), a.execCommand(), a.versionCommand(), a.completionCommand())
	return root
}

// group is a command that only holds others.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
			}
			return fmt.Errorf("%s needs a verb", c.CommandPath())
		},
	}
	c.AddCommand(verbs...)
	return c
}

// run makes a cobra RunE of f, whose errors all leave as a failure.
func (a *app) run(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if a.timeout < 0 {
			return usagef("--timeout cannot be negative")
		}
		if slices.Contains(args, "") {
			return usagef("a name cannot be empty")
		}
		if err := f(c.Context(), args); err != nil {
			return a.explain(err)
		}
		return nil
	}
}

// within bounds a wait by --timeout and what was asked for on top of it.
func (a *app) within(ctx context.Context, extra time.Duration) (context.Context, context.CancelFunc) {
	if a.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, a.timeout+extra)
}

// interruptible runs f, which may block on a terminal or a pipe, and leaves it
// behind when ctx ends: a read of standard input cannot be called off, and
// the process is about to end.
func interruptible[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// wantsJSON looks for -o json in a line that cobra could not read.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch {
		case arg == "--":
			return false
		case arg == "-ojson", arg == "-o=json", arg == "--output=json":
			return true
		case (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == "json":
			return true
		}
	}
	return false
}

// usageOf makes a failure of what cobra says of a line.
func usageOf(cmd *cobra.Command, err error) *failure {
	f := usagef("%s", err)
	fix := cmd.CommandPath() + " --help"
	if words, ok := strings.CutPrefix(f.message, "if any flags in the group ["); ok {
		flags, _, _ := strings.Cut(words, "]")
		f.message = "only one of --" + strings.ReplaceAll(flags, " ", ", --") + " can be given"
	}
	if words, ok := strings.CutPrefix(f.message, "unknown command "); ok {
		word, _, _ := strings.Cut(strings.TrimPrefix(words, `"`), `"`)
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(word); len(near) > 0 {
			fix = cmd.CommandPath() + " " + near[0]
		}
	}
	return f.try(fix)
}

// must is for calls that fail only when the program itself is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
