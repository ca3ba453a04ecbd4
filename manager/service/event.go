package service

import (
	"context"
	"strconv"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

type eventService struct {
	pb.UnsafeEventServiceServer
	m        *manager.Manager
	instance string // part of every resume token
}

var severityToPB = map[manager.Severity]pb.Event_Severity{
	manager.Debug: pb.Event_SEVERITY_DEBUG, manager.Notice: pb.Event_SEVERITY_INFO,
	manager.Warning: pb.Event_SEVERITY_WARNING, manager.Failure: pb.Event_SEVERITY_ERROR,
}

func eventToPB(e manager.Event) *pb.Event {
	return &pb.Event{
		Revision: int64(e.Seq), Time: timeToPB(e.Time), Resource: e.Resource, Type: e.Type, Severity: severityToPB[e.Severity],
		Message: e.Message, Attributes: e.Attributes, Actor: e.Cause.Actor, RequestId: e.Cause.RequestID,
	}
}

func eventFilter(text string) (filter, error) {
	return parseFilter(text, (&pb.Event{}).ProtoReflect().Descriptor())
}

// ListEvents is EventService. A page token is the revision of the last event of
// the page before.
func (s *eventService) ListEvents(_ context.Context, r *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	want, err := eventFilter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	token, err := parseToken(r.GetPageToken(), "events/", r.GetFilter())
	if err != nil {
		return nil, err
	}
	before, _ := strconv.ParseUint(token, 10, 64) // ours; empty is the beginning
	events, seq := s.m.Events()
	resp := &pb.ListEventsResponse{ResumeToken: makeResume(s.instance, seq)}
	for _, e := range events {
		out := eventToPB(e)
		if before != 0 && e.Seq >= before || !want.match(out) {
			continue
		}
		if len(resp.GetEvents()) == size {
			last := resp.GetEvents()[size-1].GetRevision()
			resp.NextPageToken = makeToken(strconv.FormatInt(last, 10), "events/", r.GetFilter())
			break
		}
		resp.Events = append(resp.Events, out)
	}
	return resp, nil
}

// WatchEvents is EventService.
func (s *eventService) WatchEvents(r *pb.WatchEventsRequest, stream grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	want, err := eventFilter(r.GetFilter())
	if err != nil {
		return err
	}
	past, seq := s.m.Events()
	if r.GetResumeToken() != "" {
		if seq, err = parseResume(s.instance, r.GetResumeToken()); err != nil {
			return err
		}
		past = nil
	}
	if err := stream.SendHeader(nil); err != nil { // tells the client that it misses nothing from here on
		return err
	}
	send := func(e manager.Event) error {
		out := eventToPB(e)
		if !want.match(out) {
			return nil
		}
		return stream.Send(&pb.WatchEventsResponse{Event: out, ResumeToken: makeResume(s.instance, e.Seq)})
	}
	for i := min(int(r.GetTail()), len(past)) - 1; i >= 0; i-- {
		if err := send(past[i]); err != nil {
			return err
		}
	}
	for {
		e, err := s.m.NextEvent(stream.Context(), seq)
		if err != nil {
			return err
		}
		seq = e.Seq
		if err := send(e); err != nil {
			return err
		}
	}
}
