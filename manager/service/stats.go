package service

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// Bounds of the time between two snapshots.
const (
	defaultInterval = time.Second
	leastInterval   = 100 * time.Millisecond
	mostInterval    = time.Hour
	// A snapshot may take this part of the time at most: reading 10,000
	// listeners ten times a second would be a load of its own.
	statsShare = 10
)

type statsService struct {
	pb.UnsafeStatsServiceServer
	m *manager.Manager
}

// GetStats is StatsService.
func (s *statsService) GetStats(ctx context.Context, r *pb.GetStatsRequest) (*pb.GetStatsResponse, error) {
	want, err := listenerFilter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	snapshot, err := s.snapshot(ctx, want, r.GetHistograms())
	if err != nil {
		return nil, err
	}
	return &pb.GetStatsResponse{Snapshot: snapshot}, nil
}

// WatchStats is StatsService. The first snapshot is sent at once.
func (s *statsService) WatchStats(r *pb.WatchStatsRequest, stream grpc.ServerStreamingServer[pb.WatchStatsResponse]) error {
	want, err := listenerFilter(r.GetFilter())
	if err != nil {
		return err
	}
	interval := r.GetInterval().AsDuration()
	switch {
	case interval == 0:
		interval = defaultInterval
	case r.GetInterval().CheckValid() != nil || interval < leastInterval || interval > mostInterval:
		return &listeners.Violation{Field: "interval", Message: fmt.Sprintf("must be from %v to %v, or 0 for %v", leastInterval, mostInterval, defaultInterval)}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-timer.C:
		}
		began := time.Now()
		snapshot, err := s.snapshot(stream.Context(), want, r.GetHistograms())
		if err != nil {
			return err
		}
		took := time.Since(began)
		timer.Reset(max(interval-took, statsShare*took))
		if err := stream.Send(&pb.WatchStatsResponse{Snapshot: snapshot}); err != nil {
			return err
		}
	}
}

// ResetPeaks is StatsService.
func (s *statsService) ResetPeaks(ctx context.Context, r *pb.ResetPeaksRequest) (*pb.ResetPeaksResponse, error) {
	want, err := listenerFilter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	var names []string
	if err := s.m.Walk(ctx, "", math.MaxInt, false, func(i *manager.Info) {
		if want.matchInfo(i) {
			names = append(names, i.Name)
		}
	}); err != nil {
		return nil, err
	}
	if err := mayTouch(ctx, pb.Role_ROLE_OPERATOR, "set peaks back", names...); err != nil {
		return nil, err
	}
	n, err := s.m.ResetPeaks(ctx, names)
	if err != nil {
		return nil, err
	}
	noteChange(ctx, fmt.Sprintf("peaks of %d listeners", n), "since they began", "from now")
	if want == nil {
		err = s.m.ResetLoops(ctx)
		noteChange(ctx, "peaks of the loops", "since they began", "from now")
	}
	return &pb.ResetPeaksResponse{Listeners: uint32(n)}, err
}

func listenerFilter(text string) (filter, error) {
	return parseFilter(text, (&pb.Listener{}).ProtoReflect().Descriptor())
}

// matchInfo makes a message only where there is something to match.
func (f filter) matchInfo(i *manager.Info) bool { return f == nil || f.match(eachToPB(i)) }
