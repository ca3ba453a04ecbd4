package service

import (
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

func execToPB(e *listeners.Exec) *pb.ExecHandler {
	out := &pb.ExecHandler{
		Command: e.Command, Environment: e.Environment, Directory: e.Directory, User: e.User, PassListener: e.PassListener,
	}
	if e.KillTimeout != 0 {
		out.KillTimeout = durationpb.New(e.KillTimeout)
	}
	return out
}

// execFromPB leaves it to Validate to refuse what is out of range.
func execFromPB(e *pb.ExecHandler) *listeners.Exec {
	return &listeners.Exec{
		Command: e.GetCommand(), Environment: e.GetEnvironment(), Directory: e.GetDirectory(), User: e.GetUser(),
		PassListener: e.GetPassListener(), KillTimeout: e.GetKillTimeout().AsDuration(),
	}
}

var concurrencyToPB = map[listeners.Concurrency]pb.ListenerSpec_Concurrency{
	listeners.AnyConcurrency: pb.ListenerSpec_CONCURRENCY_UNSPECIFIED, listeners.OnLoop: pb.ListenerSpec_CONCURRENCY_LOOP,
	listeners.InThread: pb.ListenerSpec_CONCURRENCY_THREAD, listeners.InProcess: pb.ListenerSpec_CONCURRENCY_PROCESS,
}

func concurrencyFromPB(c pb.ListenerSpec_Concurrency) (listeners.Concurrency, error) {
	for way, name := range concurrencyToPB {
		if name == c {
			return way, nil
		}
	}
	return 0, &listeners.Violation{Field: "spec.concurrency", Message: fmt.Sprintf("%d is not known: it is loop, thread or process", int32(c))}
}
