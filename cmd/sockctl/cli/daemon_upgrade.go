package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) upgradeCommand() *cobra.Command {
	var drain drainFlags
	r := &pb.UpgradeRequest{}
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Put a new program in the place of the daemon, which goes on with all sockets and connections",
		Long: "Starts a new program, has it check that it can go on with what the daemon has, and hands over: listeners,\n" +
			"connections, sockets of clients and the control addresses. Whatever goes wrong before that leaves the daemon\n" +
			"as it is, and exits with 7. Connections that a thread or a program serves (TLS, exec, --concurrency thread or\n" +
			"process) cannot move: the old process lets them finish.",
		Example: "  sockctl daemon upgrade\n" +
			"  sockctl daemon upgrade --executable /usr/local/bin/sockmgr-2 --validate-only",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().StringVar(&r.Executable, "executable", "", "`PATH` of the new program (default: that of the running one, where another version may be now)")
	c.Flags().BoolVar(&r.ValidateOnly, "validate-only", false, "only check that the program could take over")
	drain.register(c, true)
	c.RunE = a.run(func(ctx context.Context, _ []string) (err error) {
		if r.DrainTimeout, err = drain.timeout(); err != nil {
			return err
		}
		if r.Executable != "" {
			if r.Executable, err = filepath.Abs(r.Executable); err != nil {
				return err
			}
		}
		api, err := a.dial()
		if err != nil {
			return err
		}
		stream, err := api.daemon.Upgrade(ctx, r)
		if err != nil {
			return err
		}
		return a.showUpgrade(stream.Recv)
	})
	return c
}

// showUpgrade prints how far it is, a line each. What failed the call tells.
func (a *app) showUpgrade(next func() (*pb.UpgradeResponse, error)) error {
	last := pb.UpgradeResponse_PHASE_UNSPECIFIED
	for {
		r, err := next()
		switch {
		case errors.Is(err, io.EOF) && last == pb.UpgradeResponse_PHASE_DONE:
			return nil
		case errors.Is(err, io.EOF):
			return failf(codes.Unavailable, "the daemon ended in the middle of the upgrade").try("sockctl daemon info tells which process answers now")
		case err != nil:
			return err
		}
		if last = r.GetPhase(); last == pb.UpgradeResponse_PHASE_FAILED && !a.structured() {
			continue // the error has the same text
		}
		err = a.printLine(view{
			tree:  func() any { return tree(r) },
			names: []string{word(r.GetPhase())},
			text: func(w *bytes.Buffer, _ bool) {
				line := newTable(word(r.GetPhase()), r.GetMessage())
				line.write(w)
			},
		})
		if err != nil {
			return err
		}
	}
}
