package service

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

var actionToPB = map[manager.Action]pb.ListenerChange_Action{
	manager.Unchanged: pb.ListenerChange_ACTION_UNCHANGED, manager.Created: pb.ListenerChange_ACTION_CREATED,
	manager.Updated: pb.ListenerChange_ACTION_UPDATED, manager.Rebound: pb.ListenerChange_ACTION_REBOUND,
	manager.Removed: pb.ListenerChange_ACTION_DELETED, manager.NotApplied: pb.ListenerChange_ACTION_FAILED,
}

// ApplyListeners is ListenerService.
func (s *listenerService) ApplyListeners(ctx context.Context, r *pb.ApplyListenersRequest) (*pb.ApplyListenersResponse, error) {
	wishes := make([]manager.Wish, 0, len(r.GetListeners()))
	for _, l := range r.GetListeners() {
		edit, err := editOf(l, nil)
		if err != nil {
			edit = func(*manager.Draft) error { return err } // of this one, not of all
		}
		wishes = append(wishes, manager.Wish{Name: bare(l.GetName(), listenerPrefix), Etag: l.GetEtag(), Edit: withoutRaw(ctx, edit)})
	}
	applied, revision, err := s.m.Apply(ctx, wishes, manager.ApplyOptions{
		Owner: r.GetManager(), Prune: r.GetPrune(), Force: r.GetForce(), Rebind: r.GetAllowRebind(),
		Atomic: r.GetAtomic(), CheckOnly: r.GetValidateOnly(),
		MayPrune: func(name string) error { return mayTouch(ctx, pb.Role_ROLE_OPERATOR, "prune "+name, name) },
	})
	if err != nil {
		return nil, err
	}
	resp := &pb.ApplyListenersResponse{Revision: revision}
	for _, a := range applied {
		resp.Changes = append(resp.Changes, changeToPB(a))
	}
	return resp, nil
}

func changeToPB(a *manager.Applied) *pb.ListenerChange {
	c := &pb.ListenerChange{Name: listenerPrefix + a.Name, Action: actionToPB[a.Action], Issues: notesToPB(a.Notes)}
	if a.Err != nil {
		c.Error = issueOf(a.Err)
		return c
	}
	c.Listener = infoToPB(a.Info)
	before, after := &pb.Listener{}, c.GetListener()
	if a.Before != nil {
		before = infoToPB(manager.Info{Record: *a.Before})
	}
	if a.Action == manager.Removed {
		after = &pb.Listener{}
	}
	c.Fields = fieldChanges(before, after)
	return c
}

// issueOf tells of an error inside an answer as a status would outside.
func issueOf(err error) *pb.Issue {
	st, _ := status.FromError(toStatus(err))
	issue := &pb.Issue{Code: string(listeners.Internal), Message: st.Message()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			issue.Code = info.GetReason()
			if fix := info.GetMetadata()["fix"]; fix != "" {
				issue.Message += "; " + fix
			}
		}
	}
	if fault, ok := errors.AsType[*listeners.Fault](err); ok {
		issue.Field = fault.Field
	}
	if invalid, ok := errors.AsType[*manager.Invalid](err); ok {
		issue.Field = invalid.Violations[0].Field
	}
	return issue
}

// fieldChanges compares what two listeners want, field by field; options,
// labels and annotations each for itself.
func fieldChanges(before, after *pb.Listener) []*pb.FieldChange {
	was, is := wantedFields(before), wantedFields(after)
	paths := maps.Clone(was)
	maps.Copy(paths, is)
	var changes []*pb.FieldChange
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if was[path] != is[path] {
			c := &pb.FieldChange{Path: path, Before: was[path], After: is[path], Effect: effectOf(path)}
			c.NeedsRebind = c.GetEffect() == pb.OptionSpec_EFFECT_REBIND && before.GetSpec() != nil && after.GetSpec() != nil
			changes = append(changes, c)
		}
	}
	return changes
}

// effectOf says when a change of a field shows.
func effectOf(path string) pb.OptionSpec_Effect {
	switch path {
	case "spec.listen":
		return pb.OptionSpec_EFFECT_REBIND
	case "spec.handler", "spec.concurrency", "spec.access", "spec.proxyProtocol", "spec.tls":
		return pb.OptionSpec_EFFECT_NEW_CONNECTIONS
	case "spec.desiredState", "spec.pauseMode", "spec.drain":
		return pb.OptionSpec_EFFECT_LIVE
	}
	if name, ok := strings.CutPrefix(path, "spec.options."); ok {
		if o := listeners.LookupOption(name); o != nil {
			return effectToPB[o.Effect]
		}
	}
	return pb.OptionSpec_EFFECT_UNSPECIFIED
}

// wantedFields returns what a listener wants as JSON, by path.
func wantedFields(l *pb.Listener) map[string]string {
	fields := map[string]string{}
	put := func(path string, v any) {
		if m, ok := v.(proto.Message); ok {
			text, err := protojson.Marshal(m)
			v = json.RawMessage(text)
			if err != nil {
				v = err.Error() // a message of ours always marshals
			}
		}
		text, err := json.Marshal(v) // compacts, so that equal is equal
		if err != nil {
			text = []byte(err.Error())
		}
		fields[path] = string(text)
	}
	for k, v := range l.GetLabels() {
		put("labels."+k, v)
	}
	for k, v := range l.GetAnnotations() {
		put("annotations."+k, v)
	}
	for k, v := range l.GetSpec().GetOptions() {
		put("spec.options."+k, v.AsInterface())
	}
	if l.GetManager() != "" {
		put("manager", l.GetManager())
	}
	if s := l.GetSpec(); s != nil {
		put("spec.listen", s.GetListen())
		put("spec.handler", s.GetHandler())
		put("spec.desiredState", desiredNames[s.GetDesiredState()])
		if s.GetConcurrency() != pb.ListenerSpec_CONCURRENCY_UNSPECIFIED {
			put("spec.concurrency", concurrencyNames[s.GetConcurrency()])
		}
		if s.GetPauseMode() != pb.PauseMode_PAUSE_MODE_UNSPECIFIED {
			put("spec.pauseMode", pauseModeNames[s.GetPauseMode()])
		}
		if s.GetProxyProtocol() != nil {
			put("spec.proxyProtocol", s.GetProxyProtocol())
		}
		if s.GetTls() != nil {
			put("spec.tls", s.GetTls())
		}
		if s.GetAccess() != nil {
			put("spec.access", s.GetAccess())
		}
		if s.GetDrain() != nil {
			put("spec.drain", s.GetDrain())
		}
	}
	return fields
}

var desiredNames = map[pb.ListenerSpec_DesiredState]string{
	pb.ListenerSpec_DESIRED_STATE_UNSPECIFIED: "running", pb.ListenerSpec_DESIRED_STATE_RUNNING: "running",
	pb.ListenerSpec_DESIRED_STATE_PAUSED: "paused", pb.ListenerSpec_DESIRED_STATE_STOPPED: "stopped",
}

var concurrencyNames = map[pb.ListenerSpec_Concurrency]string{
	pb.ListenerSpec_CONCURRENCY_LOOP: "loop", pb.ListenerSpec_CONCURRENCY_THREAD: "thread", pb.ListenerSpec_CONCURRENCY_PROCESS: "process",
}

var pauseModeNames = map[pb.PauseMode]string{
	pb.PauseMode_PAUSE_MODE_HOLD: "hold", pb.PauseMode_PAUSE_MODE_STALL: "stall", pb.PauseMode_PAUSE_MODE_REFUSE: "refuse",
}
