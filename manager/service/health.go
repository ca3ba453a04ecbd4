package service

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// healthService is the standard health protocol. The service "" is the daemon,
// "listeners/web" is a listener, which serves while it is bound.
type healthService struct {
	healthpb.UnsafeHealthServer
	m *manager.Manager
}

func (s *healthService) of(ctx context.Context, service string) (healthpb.HealthCheckResponse_ServingStatus, error) {
	if service == "" || strings.HasPrefix(service, "sockmgr.v1.") {
		return healthpb.HealthCheckResponse_SERVING, nil
	}
	info, err := s.m.Get(ctx, bare(service, listenerPrefix), false)
	switch {
	case errors.Is(err, listeners.ListenerNotFound):
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN, nil
	case err != nil:
		return healthpb.HealthCheckResponse_UNKNOWN, err
	case info.State == manager.Running || info.State == manager.Limited:
		return healthpb.HealthCheckResponse_SERVING, nil
	default:
		return healthpb.HealthCheckResponse_NOT_SERVING, nil
	}
}

// Check is grpc.health.v1.Health.
func (s *healthService) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	st, err := s.of(ctx, r.GetService())
	if err == nil && st == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		err = status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: st}, err
}

// List is grpc.health.v1.Health.
func (s *healthService) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	resp := &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{
		"": {Status: healthpb.HealthCheckResponse_SERVING},
	}}
	infos, err := s.m.List(ctx, "", maxPage, false)
	if err != nil {
		return nil, err
	}
	if s.m.Len() > maxPage {
		return nil, status.Error(codes.ResourceExhausted, "too many listeners: use ListListeners")
	}
	for _, info := range infos {
		st, err := s.of(ctx, info.Name)
		if err != nil {
			return nil, err
		}
		resp.Statuses[listenerPrefix+info.Name] = &healthpb.HealthCheckResponse{Status: st}
	}
	return resp, nil
}

// Watch is grpc.health.v1.Health.
func (s *healthService) Watch(r *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	last := healthpb.HealthCheckResponse_ServingStatus(-1)
	for seq := s.m.Seq(); ; {
		st, err := s.of(stream.Context(), r.GetService())
		if err != nil {
			return err
		}
		if st != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: st}); err != nil {
				return err
			}
			last = st
		}
		e, err := s.m.Next(stream.Context(), seq)
		switch {
		case errors.Is(err, listeners.RevisionCompacted):
			seq = s.m.Seq() // missed some: look again
		case err != nil:
			return err
		default:
			seq = e.Seq
		}
	}
}
