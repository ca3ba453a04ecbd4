package service

import (
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

var eventToPB = map[manager.EventType]pb.WatchListenersResponse_Type{
	manager.Added: pb.WatchListenersResponse_TYPE_ADDED, manager.Modified: pb.WatchListenersResponse_TYPE_MODIFIED,
	manager.StatusChanged: pb.WatchListenersResponse_TYPE_STATUS, manager.Deleted: pb.WatchListenersResponse_TYPE_DELETED,
}

// WatchListeners is ListenerService.
func (s *listenerService) WatchListeners(r *pb.WatchListenersRequest, stream grpc.ServerStreamingServer[pb.WatchListenersResponse]) error {
	want, err := parseFilter(r.GetFilter(), (&pb.Listener{}).ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	seq := s.m.Seq() // before the listing, so that nothing is missed in between
	if r.GetResumeToken() != "" {
		if seq, err = s.parseResume(r.GetResumeToken()); err != nil {
			return err
		}
	}
	w := &watch{s: s, stream: stream, want: want, full: r.GetView() == pb.ListenerView_LISTENER_VIEW_FULL, sent: map[string]bool{}}
	if r.GetSendInitial() {
		if err := w.initial(seq); err != nil {
			return err
		}
	}
	for {
		e, err := s.m.Next(stream.Context(), seq)
		if err != nil {
			return err
		}
		seq = e.Seq
		if err := w.event(e); err != nil {
			return err
		}
	}
}

// watch is one WatchListeners call.
type watch struct {
	s      *listenerService
	stream grpc.ServerStreamingServer[pb.WatchListenersResponse]
	want   filter
	full   bool
	sent   map[string]bool // what matched when it was last sent; used with a filter
}

// initial sends what is there.
func (w *watch) initial(seq uint64) error {
	for after := ""; ; {
		infos, err := w.s.m.List(w.stream.Context(), after, maxPage, w.full)
		if err != nil {
			return err
		}
		for _, info := range infos {
			after = info.Name
			if err := w.event(manager.Event{Seq: seq, Type: manager.Added, Info: info}); err != nil {
				return err
			}
		}
		if len(infos) < maxPage {
			return w.stream.Send(&pb.WatchListenersResponse{
				Type: pb.WatchListenersResponse_TYPE_SYNCED, ResumeToken: w.s.token(seq), Time: timestamppb.Now(),
			})
		}
	}
}

// event sends one change. A listener that stops matching the filter is gone to
// this watcher, and one that begins to match is new.
func (w *watch) event(e manager.Event) error {
	info := e.Info
	if w.full && e.Type != manager.Deleted {
		if now, err := w.s.m.Get(w.stream.Context(), info.Name, true); err == nil {
			info = now
		}
	}
	l, kind := infoToPB(info), eventToPB[e.Type]
	if w.want != nil {
		match := w.want.match(l) && e.Type != manager.Deleted
		before := w.sent[l.GetName()]
		switch {
		case match && !before:
			w.sent[l.GetName()] = true
			kind = pb.WatchListenersResponse_TYPE_ADDED
		case !match && before:
			delete(w.sent, l.GetName())
			kind = pb.WatchListenersResponse_TYPE_DELETED
		case !match:
			return nil
		}
	}
	t := timestamppb.Now()
	if !e.Time.IsZero() {
		t = timestamppb.New(e.Time)
	}
	return w.stream.Send(&pb.WatchListenersResponse{Type: kind, Listener: l, ResumeToken: w.s.token(e.Seq), Time: t})
}

// token names a place in the events of this process.
func (s *listenerService) token(seq uint64) string {
	return s.instance + "." + strconv.FormatUint(seq, 36)
}

func (s *listenerService) parseResume(token string) (uint64, error) {
	instance, text, _ := strings.Cut(token, ".")
	seq, err := strconv.ParseUint(text, 36, 64)
	if instance != s.instance || err != nil {
		return 0, &listeners.Fault{
			Reason: listeners.RevisionCompacted, Message: "the resume token is of another run of the daemon, or none at all",
			Fix: "list again and watch from there",
		}
	}
	return seq, nil
}
