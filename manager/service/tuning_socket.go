package service

import (
	"context"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// socketOptions is GetOptions of a socket of a client.
func (s *tuningService) socketOptions(ctx context.Context, id string, names []string) (map[string]listeners.Value, error) {
	if err := manager.KnownOptions(names); err != nil {
		return nil, err
	}
	return s.m.Sockets().Options(ctx, socketCaller(ctx), id, names)
}

// tuneSocket is SetOptions of a socket of a client. It is setsockopt and no
// more: there is nobody to save it for, and nobody who could be locked out.
func (s *tuningService) tuneSocket(ctx context.Context, r *pb.SetOptionsRequest, values map[string]listeners.Value) (*pb.SetOptionsResponse, error) {
	var faults []*listeners.Violation
	for _, x := range []struct {
		field string
		given bool
	}{
		{"scope", r.GetScope() > pb.TuningScope_TUNING_SCOPE_ALL},
		{"revert_after", r.GetRevertAfter() != nil},
		{"validate_only", r.GetValidateOnly()},
		{"etag", r.GetEtag() != ""},
	} {
		if x.given {
			faults = append(faults, &listeners.Violation{Field: x.field, Message: "is for listeners and their connections, not for a socket"})
		}
	}
	if len(faults) > 0 {
		return nil, &manager.Invalid{Violations: faults}
	}
	results, err := s.m.Sockets().SetOptions(ctx, socketCaller(ctx), r.GetTarget(), values)
	if err != nil {
		return nil, err
	}
	resp := &pb.SetOptionsResponse{}
	for _, result := range results {
		resp.Results = append(resp.Results, resultToPB(r.GetTarget(), result))
	}
	return resp, nil
}
