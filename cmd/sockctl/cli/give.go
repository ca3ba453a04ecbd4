package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) execCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exec NAME... -- PROGRAM [ARG]...",
		Short: "Run a program with the sockets of listeners",
		Long: "The program gets the sockets as descriptors from 3 on, with LISTEN_FDS, LISTEN_FDNAMES (the listener\n" +
			"of each) and LISTEN_PID, as systemd gives them (sd_listen_fds(3)). The listeners are paused, so that the\n" +
			"program alone accepts. Who connects while it is restarted waits in the kernel. \"sockctl resume\" lets the\n" +
			"daemon accept again. Signals are passed on, and the exit code is the program's.",
		Example:           "  sockctl exec web -- /usr/local/bin/server --port-from-systemd",
		ValidArgsFunction: a.completeListeners,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		dash := c.ArgsLenAtDash()
		if dash < 1 || dash == len(args) {
			return usagef("exec needs the names of listeners, then -- and a program: sockctl exec web -- /usr/bin/server")
		}
		return a.run(func(ctx context.Context, _ []string) error { return a.runWithSockets(ctx, args[:dash], args[dash:]) })(c, args[:dash])
	}
	return c
}
