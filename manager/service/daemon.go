package service

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

type daemonService struct {
	pb.UnsafeDaemonServiceServer
	c Config
}

// GetDaemonInfo is DaemonService.
func (s *daemonService) GetDaemonInfo(context.Context, *pb.GetDaemonInfoRequest) (*pb.GetDaemonInfoResponse, error) {
	info := proto.CloneOf(s.c.Info)
	info.KernelRelease = kernelRelease()
	info.Poller, info.Store = s.c.Manager.Poller(), s.c.Manager.Store()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		info.OpenFilesLimit = limit.Cur
	}
	info.Capabilities = manager.Capabilities()
	return &pb.GetDaemonInfoResponse{Info: info}, nil
}

// GetLogLevels is DaemonService.
func (s *daemonService) GetLogLevels(context.Context, *pb.GetLogLevelsRequest) (*pb.GetLogLevelsResponse, error) {
	return &pb.GetLogLevelsResponse{Levels: s.c.Loggers.levels()}, nil
}

// SetLogLevel is DaemonService.
func (s *daemonService) SetLogLevel(ctx context.Context, r *pb.SetLogLevelRequest) (*pb.SetLogLevelResponse, error) {
	was := s.c.Loggers.levels()
	if err := s.c.Loggers.set(r.GetLogger(), r.GetLevel()); err != nil {
		return nil, err
	}
	resp := &pb.SetLogLevelResponse{Levels: s.c.Loggers.levels()}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		noteChange(ctx, name, enumWord(was[name]), enumWord(resp.GetLevels()[name]))
	}
	return resp, nil
}

// ShutdownDaemon is DaemonService. It answers before the end begins.
func (s *daemonService) ShutdownDaemon(ctx context.Context, r *pb.ShutdownDaemonRequest) (*pb.ShutdownDaemonResponse, error) {
	if r.GetInstanceId() != s.c.Info.GetInstanceId() {
		return nil, &listeners.Violation{Field: "instance_id", Message: "is not that of this daemon; GetDaemonInfo tells it"}
	}
	drain, err := drainFromPB("drain_timeout", r.GetDrainTimeout())
	if err != nil {
		return nil, err
	}
	s.c.Log.Info("shutdown asked for", "caller", callerOf(ctx), "drain", r.GetDrainTimeout().AsDuration())
	s.c.Shutdown(drain)
	noteChange(ctx, "daemon", "runs", fmt.Sprintf("ends, drain %v", r.GetDrainTimeout().AsDuration()))
	return &pb.ShutdownDaemonResponse{}, nil
}
