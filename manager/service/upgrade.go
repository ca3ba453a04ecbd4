package service

import (
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

// An Upgrade is which program to put in the place of the daemon.
type Upgrade struct {
	Executable   string // empty: the one that runs
	ValidateOnly bool
	Drain        time.Duration // that what cannot move has to finish; manager.SpecDrain: what its listener says
}

// An UpgradePhase is how far that is.
type UpgradePhase = pb.UpgradeResponse_Phase

// The phases that whoever does it tells of.
const (
	UpgradeValidating  = pb.UpgradeResponse_PHASE_VALIDATING
	UpgradeHandingOver = pb.UpgradeResponse_PHASE_HANDING_OVER
	UpgradeDraining    = pb.UpgradeResponse_PHASE_DRAINING
	UpgradeDone        = pb.UpgradeResponse_PHASE_DONE
)

// upgradeProgress is about how much of the way each phase has behind it.
var upgradeProgress = map[UpgradePhase]float64{UpgradeHandingOver: 0.5, UpgradeDraining: 0.9, UpgradeDone: 1}

// Upgrade is DaemonService. A client that goes away does not stop it.
func (s *daemonService) Upgrade(r *pb.UpgradeRequest, stream grpc.ServerStreamingServer[pb.UpgradeResponse]) error {
	drain, err := drainFromPB("drain_timeout", r.GetDrainTimeout())
	if err != nil {
		return err
	}
	if s.c.Upgrade == nil {
		return &listeners.Fault{Reason: listeners.StateInvalid, Message: "this server cannot be upgraded: nobody has said how", Fix: "restart it"}
	}
	ctx := stream.Context()
	s.c.Log.Info("upgrade asked for", "caller", callerOf(ctx), "executable", r.GetExecutable(), "validate_only", r.GetValidateOnly())
	tell := func(phase UpgradePhase, message string, pid int) {
		if pid != 0 {
			noteChange(ctx, "pid", fmt.Sprint(os.Getpid()), fmt.Sprint(pid))
		}
		_ = stream.Send(&pb.UpgradeResponse{Phase: phase, Progress: upgradeProgress[phase], Message: message, Pid: int32(pid)}) // or the client is gone
	}
	err = s.c.Upgrade(ctx, Upgrade{Executable: r.GetExecutable(), ValidateOnly: r.GetValidateOnly(), Drain: drain}, tell)
	if err != nil {
		tell(pb.UpgradeResponse_PHASE_FAILED, err.Error(), 0)
	}
	return err
}
