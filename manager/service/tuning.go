package service

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

type tuningService struct {
	pb.UnsafeTuningServiceServer
	m *manager.Manager
}

// ListOptions is TuningService.
func (s *tuningService) ListOptions(_ context.Context, r *pb.ListOptionsRequest) (*pb.ListOptionsResponse, error) {
	resp := &pb.ListOptionsResponse{KernelRelease: kernelRelease()}
	if err := manager.KnownOptions(r.GetNames()); err != nil {
		return nil, err
	}
	options := listeners.Options
	for _, name := range r.GetNames() {
		if listeners.IsRaw(name) { // in no table: only those that are asked for
			options = append(slices.Clip(options), listeners.LookupOption(name))
		}
	}
	for _, o := range options {
		if len(r.GetNames()) > 0 && !o.IsRaw() && !slices.Contains(r.GetNames(), o.Name) {
			continue
		}
		spec := optionToPB(o)
		if r.GetNetwork() == pb.Network_NETWORK_UNSPECIFIED || slices.Contains(spec.GetNetworks(), r.GetNetwork()) {
			resp.Options = append(resp.Options, spec)
		}
	}
	return resp, nil
}

// GetOptions is TuningService.
func (s *tuningService) GetOptions(ctx context.Context, r *pb.GetOptionsRequest) (*pb.GetOptionsResponse, error) {
	read := s.m.Options
	if strings.HasPrefix(r.GetTarget(), socketPrefix) {
		read = s.socketOptions
	}
	target, isConn := strings.CutPrefix(r.GetTarget(), connectionPrefix)
	if isConn {
		read = s.m.ConnOptions
	}
	values, err := read(ctx, bare(target, listenerPrefix), r.GetNames())
	if err != nil {
		return nil, err
	}
	return &pb.GetOptionsResponse{Options: valuesToPB(values)}, nil
}

var scopeFromPB = map[pb.TuningScope]manager.Scope{
	pb.TuningScope_TUNING_SCOPE_UNSPECIFIED: manager.ScopeAll, pb.TuningScope_TUNING_SCOPE_ALL: manager.ScopeAll,
	pb.TuningScope_TUNING_SCOPE_LISTENER: manager.ScopeListener, pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS: manager.ScopeConnections,
}

// SetOptions is TuningService.
func (s *tuningService) SetOptions(ctx context.Context, r *pb.SetOptionsRequest) (*pb.SetOptionsResponse, error) {
	isSocket := strings.HasPrefix(r.GetTarget(), socketPrefix)
	if who := callerOf(ctx); !isSocket && who.granted < pb.Role_ROLE_OPERATOR {
		return nil, roleMissing(who, "change options of listeners and their connections", pb.Role_ROLE_OPERATOR)
	}
	values, faults := valuesFromPB("options", r.GetOptions())
	scope, known := scopeFromPB[r.GetScope()]
	if !known {
		faults = append(faults, &listeners.Violation{Field: "scope", Message: "is not known"})
	}
	after, fault := revertAfter(r.GetRevertAfter())
	if fault != nil {
		faults = append(faults, fault)
	}
	if len(faults) > 0 {
		return nil, &manager.Invalid{Violations: faults}
	}
	if err := mayTuneRaw(ctx, values); err != nil {
		return nil, err
	}
	if isSocket {
		return s.tuneSocket(ctx, r, values)
	}
	var results []listeners.Result
	var trial manager.Trial
	var err error
	target := r.GetTarget()
	id, isConn := strings.CutPrefix(target, connectionPrefix)
	if !isConn {
		id = bare(target, listenerPrefix)
		target = listenerPrefix + id
	}
	tries := after > 0 && !r.GetValidateOnly()
	switch {
	case isConn && tries:
		results, trial, err = s.m.TryConnOptions(ctx, id, values, after)
	case isConn:
		results, err = s.m.SetConnOptions(ctx, id, values, r.GetValidateOnly())
	case tries:
		results, trial, err = s.m.TryOptions(ctx, id, values, scope, r.GetEtag(), after)
	default:
		results, err = s.m.SetOptions(ctx, id, values, scope, r.GetEtag(), r.GetValidateOnly())
	}
	if err != nil {
		return nil, err
	}
	resp := &pb.SetOptionsResponse{ChangeId: trial.ID, RevertTime: timeToPB(trial.Deadline)}
	for _, result := range results {
		resp.Results = append(resp.Results, resultToPB(target, result))
	}
	return resp, nil
}

// revertAfter checks the time of a try; 0 is none.
func revertAfter(d *durationpb.Duration) (time.Duration, *listeners.Violation) {
	after := d.AsDuration()
	if d == nil || d.CheckValid() == nil && manager.LeastTry <= after && after <= manager.GreatestTry {
		return after, nil
	}
	return 0, &listeners.Violation{Field: "revert_after", Message: fmt.Sprintf("must be from %v to %v", manager.LeastTry, manager.GreatestTry)}
}

// ConfirmOptions is TuningService.
func (s *tuningService) ConfirmOptions(ctx context.Context, r *pb.ConfirmOptionsRequest) (*pb.ConfirmOptionsResponse, error) {
	id := r.GetChangeId()
	if id == "" {
		return nil, &listeners.Violation{Field: "change_id", Message: "is empty: it is in the answer of SetOptions"}
	}
	values, err := s.m.Tried(id)
	target := s.m.TriedOn(id)
	if err == nil {
		err = mayTuneRaw(ctx, values)
	}
	switch {
	case err != nil:
	case r.GetRevert():
		err = s.m.Revert(ctx, id)
	default:
		err = s.m.Confirm(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	now := "kept"
	if r.GetRevert() {
		now = "undone"
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		noteChange(ctx, fmt.Sprintf("%s %s=%v", target, name, values[name]), "tried", now)
	}
	return &pb.ConfirmOptionsResponse{}, nil
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
