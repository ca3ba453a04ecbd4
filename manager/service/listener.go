package service

import (
	"context"
	"errors"
	"math"
	"time"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

var listenerKind = (&pb.Listener{}).ProtoReflect().Descriptor()

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
	want, used, err := parseQuery(r.GetFilter(), listenerKind)
	if err != nil {
		return nil, err
	}
	by, err := parseOrder(r.GetOrderBy(), listenerKind, used)
	if err != nil {
		return nil, err
	}
	query := r.GetFilter() + "\x00" + r.GetOrderBy()
	from, err := parseToken(r.GetPageToken(), listenerPrefix, query)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListListenersResponse{ResumeToken: makeResume(s.instance, s.m.Seq())}
	full := r.GetView() == pb.ListenerView_LISTENER_VIEW_FULL || used["status.sockets"]
	var next string
	switch {
	case by != nil:
		next, err = s.listSorted(ctx, resp, want, by, from, size, full)
	case want != nil:
		next, err = s.listMatching(ctx, resp, want, from, size, full)
	default:
		next, err = s.listAll(ctx, resp, from, size, full)
	}
	if err != nil {
		return nil, err
	}
	if next != "" {
		resp.NextPageToken = makeToken(next, listenerPrefix, query)
	}
	return resp, nil
}

// listAll is the listing that goes through one page only.
func (s *listenerService) listAll(ctx context.Context, resp *pb.ListListenersResponse, from string, size int, full bool) (next string, err error) {
	resp.Listeners = make([]*pb.Listener, 0, min(size+1, s.m.Len()))
	err = s.m.Walk(ctx, from, size+1, full, func(i *manager.Info) { resp.Listeners = append(resp.Listeners, eachToPB(i)) })
	resp.TotalSize = int32(s.m.Len())
	return cutPage(resp, size), err
}

// cutPage takes off what is more than a page, and returns the last name on it.
func cutPage(resp *pb.ListListenersResponse, size int) (next string) {
	if len(resp.GetListeners()) <= size {
		return ""
	}
	resp.Listeners = resp.Listeners[:size]
	return bare(resp.GetListeners()[size-1].GetName(), listenerPrefix)
}

// everyListener passes on all that match.
func (s *listenerService) everyListener(ctx context.Context, want filter, full bool, f func(id string, l *pb.Listener)) error {
	return s.m.Walk(ctx, "", math.MaxInt, full, func(i *manager.Info) {
		if l := eachToPB(i); want.match(l) {
			f(i.Name, l)
		}
	})
}

// listMatching goes through all, to count them.
func (s *listenerService) listMatching(ctx context.Context, resp *pb.ListListenersResponse, want filter, from string, size int, full bool) (next string, err error) {
	err = s.everyListener(ctx, want, full, func(id string, l *pb.Listener) {
		resp.TotalSize++
		if id > from && len(resp.GetListeners()) <= size {
			resp.Listeners = append(resp.Listeners, l)
		}
	})
	return cutPage(resp, size), err
}

// listSorted goes through all, and keeps a page.
func (s *listenerService) listSorted(ctx context.Context, resp *pb.ListListenersResponse, want filter, by order, from string, size int, full bool) (next string, err error) {
	t := &top[*pb.Listener]{order: by, most: size + 1}
	if t.after, err = by.parseKey(from); err != nil {
		return "", err
	}
	err = s.everyListener(ctx, want, full, func(_ string, l *pb.Listener) { t.offer(l.GetName(), l.ProtoReflect(), l) })
	resp.TotalSize = int32(t.total)
	resp.Listeners, next = t.page(size)
	return next, err
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
	ctx, before := noticing(ctx)
	info, notes, err := s.m.Update(ctx, name, l.GetEtag(), withoutRaw(ctx, edit), r.GetAllowRebind(), r.GetValidateOnly())
	if r.GetAllowMissing() && errors.Is(err, listeners.ListenerNotFound) {
		made, err := s.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: l, ValidateOnly: r.GetValidateOnly()})
		if err == nil {
			noteOf(ctx).addFields("", fieldChanges(&pb.Listener{}, made.GetListener()))
		}
		return &pb.UpdateListenerResponse{Listener: made.GetListener(), Issues: made.GetIssues()}, err
	}
	if err != nil {
		return nil, err
	}
	return &pb.UpdateListenerResponse{Listener: infoToPB(info), Issues: notesToPB(notes), Changes: fieldChanges(infoToPB(*before.was), infoToPB(info))}, nil
}

// DeleteListener is ListenerService.
func (s *listenerService) DeleteListener(ctx context.Context, r *pb.DeleteListenerRequest) (*pb.DeleteListenerResponse, error) {
	drain, err := drainFromPB("drain_timeout", r.GetDrainTimeout())
	if err != nil {
		return nil, err
	}
	ctx, before := noticing(ctx)
	info, err := s.m.Delete(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag(), drain, r.GetValidateOnly())
	if r.GetAllowMissing() && errors.Is(err, listeners.ListenerNotFound) {
		return &pb.DeleteListenerResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &pb.DeleteListenerResponse{Listener: noteStep(ctx, before, info)}, nil
}

// StartListener is ListenerService.
func (s *listenerService) StartListener(ctx context.Context, r *pb.StartListenerRequest) (*pb.StartListenerResponse, error) {
	ctx, before := noticing(ctx)
	info, err := s.m.Start(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag())
	if err != nil {
		return nil, err
	}
	return &pb.StartListenerResponse{Listener: noteStep(ctx, before, info)}, nil
}

// StopListener is ListenerService.
func (s *listenerService) StopListener(ctx context.Context, r *pb.StopListenerRequest) (*pb.StopListenerResponse, error) {
	drain, err := drainFromPB("drain_timeout", r.GetDrainTimeout())
	if err != nil {
		return nil, err
	}
	ctx, before := noticing(ctx)
	info, err := s.m.Stop(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag(), drain)
	if err != nil {
		return nil, err
	}
	return &pb.StopListenerResponse{Listener: noteStep(ctx, before, info)}, nil
}

// maxPause is the longest time after which a pause ends by itself.
const maxPause = 30 * 24 * time.Hour

// PauseListener is ListenerService.
func (s *listenerService) PauseListener(ctx context.Context, r *pb.PauseListenerRequest) (*pb.PauseListenerResponse, error) {
	mode, err := pauseModeFromPB(r.GetMode())
	if err != nil {
		return nil, err
	}
	after, err := durationFromPB("resume_after", r.GetResumeAfter(), maxPause)
	if err != nil {
		return nil, err
	}
	if after == nil {
		after = new(time.Duration)
	}
	ctx, before := noticing(ctx)
	info, err := s.m.Pause(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag(), mode, *after)
	if err != nil {
		return nil, err
	}
	return &pb.PauseListenerResponse{Listener: noteStep(ctx, before, info)}, nil
}

// ResumeListener is ListenerService.
func (s *listenerService) ResumeListener(ctx context.Context, r *pb.ResumeListenerRequest) (*pb.ResumeListenerResponse, error) {
	ctx, before := noticing(ctx)
	info, err := s.m.Resume(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag())
	if err != nil {
		return nil, err
	}
	return &pb.ResumeListenerResponse{Listener: noteStep(ctx, before, info)}, nil
}

// DrainListener is ListenerService.
func (s *listenerService) DrainListener(ctx context.Context, r *pb.DrainListenerRequest) (*pb.DrainListenerResponse, error) {
	timeout, err := drainFromPB("timeout", r.GetTimeout())
	if err != nil {
		return nil, err
	}
	ctx, before := noticing(ctx)
	info, err := s.m.Drain(ctx, bare(r.GetName(), listenerPrefix), r.GetEtag(), timeout)
	if err != nil {
		return nil, err
	}
	return &pb.DrainListenerResponse{Listener: noteStep(ctx, before, info)}, nil
}
