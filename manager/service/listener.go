package service

import (
	"context"
	"errors"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

type listenerService struct {
	pb.UnsafeListenerServiceServer
	m        *manager.Manager
	instance string // part of every resume token
}

// CreateListener is ListenerService.
func (s *listenerService) CreateListener(ctx context.Context, r *pb.CreateListenerRequest) (*pb.CreateListenerResponse, error) {
	d, err := draftOf(r.GetListener())
	if err == nil {
		err = mayTuneRaw(ctx, d.Options)
	}
	if err != nil {
		return nil, err
	}
	info, notes, err := s.m.Create(ctx, bare(r.GetListenerId(), listenerPrefix), d, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	return &pb.CreateListenerResponse{Listener: infoToPB(info), Issues: notesToPB(notes)}, nil
}

// GetListener is ListenerService.
func (s *listenerService) GetListener(ctx context.Context, r *pb.GetListenerRequest) (*pb.GetListenerResponse, error) {
	info, err := s.m.Get(ctx, bare(r.GetName(), listenerPrefix), r.GetView() == pb.ListenerView_LISTENER_VIEW_FULL)
	if err != nil {
		return nil, err
	}
	return &pb.GetListenerResponse{Listener: infoToPB(info)}, nil
}

// ListListeners is ListenerService. A page token is the last name of the page
// before, so that listeners may come and go in between.
func (s *listenerService) ListListeners(ctx context.Context, r *pb.ListListenersRequest) (*pb.ListListenersResponse, error) {
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	want, err := parseFilter(r.GetFilter(), (&pb.Listener{}).ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	from, err := parseToken(r.GetPageToken(), listenerPrefix, r.GetFilter())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListListenersResponse{ResumeToken: makeResume(s.instance, s.m.Seq())}
	full := r.GetView() == pb.ListenerView_LISTENER_VIEW_FULL
	if want == nil {
		infos, err := s.m.List(ctx, from, size+1, full)
		if err != nil {
			return nil, err
		}
		for _, info := range infos {
			resp.Listeners = append(resp.Listeners, infoToPB(info))
		}
		resp.TotalSize = int32(s.m.Len())
	} else if err := s.listMatching(ctx, resp, want, from, size, full); err != nil {
		return nil, err
	}
	if len(resp.Listeners) > size {
		resp.Listeners = resp.Listeners[:size]
		last := bare(resp.Listeners[size-1].GetName(), listenerPrefix)
		resp.NextPageToken = makeToken(last, listenerPrefix, r.GetFilter())
	}
	return resp, nil
}

// listMatching goes through all, to count them.
func (s *listenerService) listMatching(ctx context.Context, resp *pb.ListListenersResponse, want filter, from string, size int, full bool) error {
	for after := ""; ; {
		infos, err := s.m.List(ctx, after, maxPage, full)
		if err != nil || len(infos) == 0 {
			return err
		}
		for _, info := range infos {
			after = info.Name
			l := infoToPB(info)
			if !want.match(l) {
				continue
			}
			resp.TotalSize++
			if info.Name > from && len(resp.GetListeners()) <= size {
				resp.Listeners = append(resp.Listeners, l)
			}
		}
	}
}

// UpdateListener is ListenerService.
func (s *listenerService) UpdateListener(ctx context.Context, r *pb.UpdateListenerRequest) (*pb.UpdateListenerResponse, error) {
	l := r.GetListener()
	name := bare(l.GetName(), listenerPrefix)
	if name == "" {
		return nil, &listeners.Violation{Field: "listener.name", Message: "is empty: it says which listener to change"}
	}
	edit, err := editOf(l, r.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	info, notes, err := s.m.Update(ctx, name, l.GetEtag(), withoutRaw(ctx, edit), r.GetAllowRebind(), r.GetValidateOnly())
	if r.GetAllowMissing() && errors.Is(err, listeners.ListenerNotFound) {
		made, err := s.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: l, ValidateOnly: r.GetValidateOnly()})
		return &pb.UpdateListenerResponse{Listener: made.GetListener(), Issues: made.GetIssues()}, err
	}
	if err != nil {
		return nil, err
	}
	return &pb.UpdateListenerResponse{Listener: infoToPB(info), Issues: notesToPB(notes)}, nil
}

// DeleteListener is ListenerService.
func (s *listenerService) DeleteListener(ctx context.Context, r *pb.DeleteListenerRequest) (*pb.DeleteListenerResponse, error) {
	drain, err := drainFromPB(r.GetDrainTimeout())
	if err != nil {
		return nil, err
	}
	info, err := s.m.Delete(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag(), drain, r.GetValidateOnly())
	if r.GetAllowMissing() && errors.Is(err, listeners.ListenerNotFound) {
		return &pb.DeleteListenerResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &pb.DeleteListenerResponse{Listener: infoToPB(info)}, nil
}

// StartListener is ListenerService.
func (s *listenerService) StartListener(ctx context.Context, r *pb.StartListenerRequest) (*pb.StartListenerResponse, error) {
	info, err := s.m.Start(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag())
	if err != nil {
		return nil, err
	}
	return &pb.StartListenerResponse{Listener: infoToPB(info)}, nil
}

// StopListener is ListenerService.
func (s *listenerService) StopListener(ctx context.Context, r *pb.StopListenerRequest) (*pb.StopListenerResponse, error) {
	drain, err := drainFromPB(r.GetDrainTimeout())
	if err != nil {
		return nil, err
	}
	info, err := s.m.Stop(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag(), drain)
	if err != nil {
		return nil, err
	}
	return &pb.StopListenerResponse{Listener: infoToPB(info)}, nil
}
