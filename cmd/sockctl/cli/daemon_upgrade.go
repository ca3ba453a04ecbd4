package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
		before, err := api.daemon.GetDaemonInfo(ctx, &pb.GetDaemonInfoRequest{})
		if err != nil {
			return err
		}
		stream, err := api.daemon.Upgrade(ctx, r)
		if err != nil {
			return err
		}
		heir, err := a.showUpgrade(stream.Recv)
		if isLost(err) {
			return a.afterLoss(ctx, api, before.GetInfo(), heir)
		}
		return err
	})
	return c
}

// errCut is an upgrade whose end nobody tells.
var errCut = errors.New("no more is said of the upgrade")

// isLost reports whether an error is that of a connection, not the daemon's word.
func isLost(err error) bool {
	return errors.Is(err, errCut) || status.Code(err) == codes.Unavailable && len(status.Convert(err).Details()) == 0
}

// showUpgrade prints how far it is, a line each, and returns the pid of the new
// process, once that is known. What failed the call tells.
func (a *app) showUpgrade(next func() (*pb.UpgradeResponse, error)) (heir int32, err error) {
	last := pb.UpgradeResponse_PHASE_UNSPECIFIED
	for {
		r, err := next()
		switch {
		case last == pb.UpgradeResponse_PHASE_DONE && (errors.Is(err, io.EOF) || isLost(err)):
			return heir, nil
		case errors.Is(err, io.EOF):
			return heir, errCut
		case err != nil:
			return heir, err
		}
		heir = cmp.Or(r.GetPid(), heir)
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
			return heir, err
		}
	}
}

// afterLoss finds out what has become of an upgrade in the middle of which the
// daemon that was asked was lost.
func (a *app) afterLoss(ctx context.Context, api *client, before *pb.DaemonInfo, heir int32) error {
	lost := fmt.Sprintf("the daemon (pid %d) ended in the middle of the upgrade", before.GetPid())
	bounded, cancel := a.within(ctx, 0)
	defer cancel()
	r, err := api.daemon.GetDaemonInfo(bounded, &pb.GetDaemonInfoRequest{}, grpc.WaitForReady(true))
	now := r.GetInfo()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return failf(codes.Unavailable, "%s, and nobody answers at %s in its place", lost, api.addr).with("address", api.addr).
			try("look whether its supervisor starts another (sockctl daemon info), or start it")
	case now.GetInstanceId() == before.GetInstanceId():
		return failf(codes.Unknown, "the connection to the daemon (pid %d) was lost in the middle of the upgrade, and it answers again: it is not upgraded, or not yet", now.GetPid()).
			try("sockctl events tells how the upgrade ended")
	case now.GetPid() == heir:
		a.note("%s, when pid %d had taken over, which serves", lost, heir)
		return nil
	}
	return failf(codes.Unknown, "%s, and pid %d (version %s) was started in its place, with the sockets and the state that were kept: it was not handed over to", lost, now.GetPid(), now.GetVersion()).
		try("sockctl daemon upgrade again, if that is not the version that was meant")
}
