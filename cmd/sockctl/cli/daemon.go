package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) daemonCommand() *cobra.Command {
	return group("daemon", "Show and run the daemon itself",
		a.daemonInfoCommand(), a.whoamiCommand(), a.doctorCommand(), a.logLevelCommand(), a.upgradeCommand(), a.shutdownCommand())
}

func (a *app) daemonInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "info",
		Short:             "Show what the daemon is and what it can do here",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			resp, err := api.daemon.GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
			if err != nil {
				return err
			}
			info := resp.GetInfo()
			return a.print(view{
				tree:  func() any { return tree(info) },
				names: []string{info.GetInstanceId()},
				text:  func(w *bytes.Buffer, _ bool) { sections(w, a.describeDaemon(info)) },
			})
		}),
	}
}

func (a *app) describeDaemon(i *pb.DaemonInfo) *section {
	s := &section{title: "sockmgr " + i.GetVersion()}
	s.add("commit", i.GetCommit())
	s.add("go", i.GetGoVersion())
	s.add("API", strings.Join(i.GetApiVersions(), ", "))
	s.add("control", strings.Join(uris(i.GetControl()), ", "))
	s.add("pid", fmt.Sprint(i.GetPid()))
	s.add("started", a.when(i.GetStartTime()))
	s.add("instance", i.GetInstanceId())
	s.add("host", i.GetHostname())
	s.add("kernel", i.GetKernelRelease())
	s.add("poller", i.GetPoller())
	s.add("state", i.GetStore())
	s.add("open files limit", fmt.Sprint(i.GetOpenFilesLimit()))
	s.add("capabilities", strings.Join(i.GetCapabilities(), ", "))
	return s
}

// levels are the words of log-level in order. Never written to.
var levels = []string{"trace", "debug", "info", "warn", "error", "off"}

// level returns the level of a word.
func level(s string) (pb.LogLevel, bool) {
	n, ok := pb.LogLevel_value["LOG_LEVEL_"+strings.ToUpper(s)]
	return pb.LogLevel(n), ok && slices.Contains(levels, s)
}

func (a *app) logLevelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "log-level [LOGGER [LEVEL]]",
		Short: "Show or set how much is logged",
		Long: "log-level shows the level of every logger, or of one; with a level it sets it, for all loggers when none\n" +
			"is named. Levels: " + strings.Join(levels, ", ") + ".",
		Example: "  sockctl daemon log-level\n" +
			"  sockctl daemon log-level debug\n" +
			"  sockctl daemon log-level sockmgr.loop trace",
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: a.completeLogLevel,
		RunE: a.run(func(ctx context.Context, args []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if to, ok := level(args[0]); ok {
					return a.setLogLevel(ctx, api, "", to)
				}
			}
			if len(args) == 2 {
				to, ok := level(args[1])
				if !ok {
					return usagef("level %q: want %s", args[1], strings.Join(levels, ", "))
				}
				return a.setLogLevel(ctx, api, args[0], to)
			}
			return a.showLogLevels(ctx, api, args)
		}),
	}
}

func (a *app) setLogLevel(ctx context.Context, api *client, logger string, to pb.LogLevel) error {
	resp, err := api.daemon.SetLogLevel(ctx, &pb.SetLogLevelRequest{Logger: logger, Level: to})
	if err != nil {
		return err
	}
	return a.printLogLevels(resp.GetLevels())
}

func (a *app) showLogLevels(ctx context.Context, api *client, loggers []string) error {
	resp, err := api.daemon.GetLogLevels(ctx, &pb.GetLogLevelsRequest{})
	if err != nil {
		return err
	}
	all := resp.GetLevels()
	if len(loggers) == 0 {
		return a.printLogLevels(all)
	}
	some := map[string]pb.LogLevel{}
	for _, logger := range loggers {
		at, ok := all[logger]
		if !ok {
			return failf(codes.NotFound, "%s is neither a logger nor a level", logger).
				try("sockctl daemon log-level; levels are " + strings.Join(levels, ", "))
		}
		some[logger] = at
	}
	return a.printLogLevels(some)
}

func (a *app) printLogLevels(m map[string]pb.LogLevel) error {
	loggers := slices.Sorted(maps.Keys(m))
	return a.print(view{
		tree:  func() any { return tree(&pb.GetLogLevelsResponse{Levels: m}) },
		names: loggers,
		text: func(w *bytes.Buffer, _ bool) {
			t := newTable("LOGGER", "LEVEL")
			for _, logger := range loggers {
				t.row(logger, word(m[logger]))
			}
			t.write(w)
		},
	})
}

func (a *app) shutdownCommand() *cobra.Command {
	var drain drainFlags
	c := &cobra.Command{
		Use:               "shutdown",
		Short:             "Drain, end the daemon and wait until it is gone",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	drain.register(c, true)
	c.RunE = a.run(func(ctx context.Context, _ []string) error {
		timeout, err := drain.timeout()
		if err != nil {
			return err
		}
		api, err := a.dial()
		if err != nil {
			return err
		}
		resp, err := api.daemon.GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
		if err != nil {
			return err
		}
		info := resp.GetInfo()
		_, err = api.daemon.ShutdownDaemon(ctx, &pb.ShutdownDaemonRequest{
			InstanceId: info.GetInstanceId(), DrainTimeout: timeout,
		})
		// It may end before its answer is out.
		if err != nil && a.explain(err).code != codes.Unavailable {
			return err
		}
		ctx, cancel := a.within(ctx, drain.time)
		defer cancel()
		if err := a.awaitEnd(ctx, api, info); err != nil {
			return err
		}
		return a.print(view{
			tree:  func() any { return tree(info) },
			names: []string{info.GetInstanceId()},
			text:  func(w *bytes.Buffer, _ bool) { fmt.Fprintf(w, "sockmgr (pid %d) ended\n", info.GetPid()) },
		})
	})
	return c
}

// awaitEnd asks until nobody answers, or another instance does.
func (a *app) awaitEnd(ctx context.Context, api *client, info *pb.DaemonInfo) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := api.daemon.GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
		switch {
		case err == nil && resp.GetInfo().GetInstanceId() != info.GetInstanceId():
			return nil
		case err != nil && api.lastDialError() != nil:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return failf(codes.DeadlineExceeded, "time ran out while sockmgr (pid %d) drains", info.GetPid()).
				try("sockctl daemon shutdown --now")
		}
	}
}
