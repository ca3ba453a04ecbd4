package service

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

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
	defer manager.EaseCollector(len(r.GetListeners()))()
	wishes := make([]manager.Wish, len(r.GetListeners()))
	for i, l := range r.GetListeners() {
		wishes[i] = manager.Wish{Name: bare(l.GetName(), listenerPrefix), Etag: l.GetEtag(), Edit: wishOf(ctx, l)}
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
	if len(applied) >= encodedFrom {
		return resp, encodeChanges(ctx, resp, applied)
	}
	var words fieldWords
	for _, a := range applied {
		resp.Changes = append(resp.Changes, changeToPB(a, &words, &changeMessage{}))
	}
	return resp, nil
}

// wishOf is what a request wants of a listener. What is wrong with it is said when
// it is its turn: of this one, not of all.
func wishOf(ctx context.Context, l *pb.Listener) func(*manager.Draft) error {
	return func(d *manager.Draft) error {
		edit, err := editOf(l, nil)
		if err != nil {
			return err
		}
		return withoutRaw(ctx, edit)(d)
	}
}

// A changeMessage is what most messages of a change are made of.
type changeMessage struct {
	change   pb.ListenerChange
	listener listenerMessage
	nothing  pb.Listener
}

// changeToPB says what has become of a listener, in messages that have nothing in them.
func changeToPB(a *manager.Applied, words *fieldWords, m *changeMessage) *pb.ListenerChange {
	c := &m.change
	c.Name, c.Action, c.Issues = listenerPrefix+a.Name, actionToPB[a.Action], notesToPB(a.Notes)
	if a.Err != nil {
		c.Error = issueOf(a.Err)
		return c
	}
	if a.Info == nil { // it has gone meanwhile
		return c
	}
	c.Listener = &m.nothing
	if a.Info.Record != nil {
		c.Listener = infoIn(&m.listener, a.Info)
	}
	before, after := &m.nothing, c.GetListener()
	if a.Before != nil {
		before = infoToPB(manager.Info{Record: a.Before})
	}
	if a.Action == manager.Removed {
		after = &m.nothing
	}
	c.Fields = words.changes(before, after)
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
