package service

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

var changeTypeToPB = map[manager.ChangeType]pb.WatchListenersResponse_Type{
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
		if seq, err = parseResume(s.instance, r.GetResumeToken()); err != nil {
			return err
		}
	}
	w := &watch{
		s: s, stream: stream, want: want, full: r.GetView() == pb.ListenerView_LISTENER_VIEW_FULL,
		sent: map[string]bool{}, resumed: r.GetResumeToken() != "",
	}
	if err := stream.SendHeader(nil); err != nil { // tells the client that it misses nothing from here on
		return err
	}
	if err := w.begin(seq, r.GetSendInitial()); err != nil {
		return err
	}
	for {
		e, err := s.m.Next(stream.Context(), seq)
		if err != nil {
			return err
		}
		seq = e.Seq
		if err := w.change(e); err != nil {
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
	// With a filter: what matched when it was last looked at. After a resume it
	// is not known what the client has been sent before.
	sent    map[string]bool
	resumed bool
}

// begin looks at what is there, and sends it if it shall.
func (w *watch) begin(seq uint64, send bool) error {
	if !send && (w.want == nil || w.resumed) {
		return nil
	}
	for after := ""; ; {
		infos, err := w.s.m.List(w.stream.Context(), after, maxPage, w.full)
		if err != nil {
			return err
		}
		for _, info := range infos {
			after = info.Name
			if !send {
				w.note(listenerPrefix+info.Name, w.want.match(infoToPB(info)))
				continue
			}
			if err := w.change(manager.Change{Seq: seq, Type: manager.Added, Info: &info}); err != nil {
				return err
			}
		}
		if len(infos) < maxPage && !send {
			return nil
		}
		if len(infos) < maxPage {
			return w.stream.Send(&pb.WatchListenersResponse{
				Type: pb.WatchListenersResponse_TYPE_SYNCED, ResumeToken: makeResume(w.s.instance, seq), Time: timestamppb.Now(),
			})
		}
	}
}

// change sends one change. A listener that stops matching the filter is gone to
// this watcher, and one that begins to match is new.
func (w *watch) change(e manager.Change) error {
	info := *e.Info
	if w.full && e.Type != manager.Deleted {
		if now, err := w.s.m.Get(w.stream.Context(), info.Name, true); err == nil {
			info = now
		}
	}
	l, kind := infoToPB(info), changeTypeToPB[e.Type]
	if w.want != nil {
		match := w.want.match(l) && e.Type != manager.Deleted
		before, known := w.sent[l.GetName()]
		unknown := w.resumed && !known && e.Type != manager.Added
		w.note(l.GetName(), match)
		switch {
		case match && !before && !unknown:
			kind = pb.WatchListenersResponse_TYPE_ADDED
		case !match && (before || unknown): // to a client that never had it this is no news
			kind = pb.WatchListenersResponse_TYPE_DELETED
		case !match:
			return nil
		}
	}
	t := timestamppb.Now()
	if !e.Time.IsZero() {
		t = timestamppb.New(e.Time)
	}
	return w.stream.Send(&pb.WatchListenersResponse{Type: kind, Listener: l, ResumeToken: makeResume(w.s.instance, e.Seq), Time: t})
}

// note remembers whether a listener matched.
func (w *watch) note(name string, match bool) {
	if match || w.resumed {
		w.sent[name] = match
	} else {
		delete(w.sent, name)
	}
}
