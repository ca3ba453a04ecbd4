package service

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

type listenerService struct {
	pb.UnsafeListenerServiceServer
	m        *manager.Manager
	instance string // part of every resume token
}

// draftOf is what a request says of a listener that is to be made.
func draftOf(l *pb.Listener) (manager.Draft, error) {
	s := l.GetSpec()
	values, faults := valuesFromPB("spec.options", s.GetOptions())
	d := manager.Draft{
		Labels: l.GetLabels(), Annotations: l.GetAnnotations(), Listen: s.GetListen(), Handler: handlerFromPB(s.GetHandler()),
		Options: values, Stopped: s.GetDesiredState() == pb.ListenerSpec_DESIRED_STATE_STOPPED,
	}
	if _, known := pb.ListenerSpec_DesiredState_name[int32(s.GetDesiredState())]; !known {
		faults = append(faults, &listeners.Violation{Field: "spec.desired_state", Message: "is not known"})
	}
	if len(faults) > 0 {
		return d, &manager.Invalid{Violations: faults}
	}
	return d, nil
}

// CreateListener is ListenerService.
func (s *listenerService) CreateListener(ctx context.Context, r *pb.CreateListenerRequest) (*pb.CreateListenerResponse, error) {
	d, err := draftOf(r.GetListener())
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
	from, err := parseToken(r.GetPageToken(), r.GetFilter())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListListenersResponse{ResumeToken: s.token(s.m.Seq())}
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
		resp.NextPageToken = makeToken(last, r.GetFilter())
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
	edit, err := editOf(l, r.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	info, notes, err := s.m.Update(ctx, name, l.GetEtag(), edit, r.GetAllowRebind(), r.GetValidateOnly())
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

// editOf turns a field mask into a change of a draft. Without a mask all fields
// that are set are changed; * replaces everything.
func editOf(l *pb.Listener, paths []string) (func(*manager.Draft) error, error) {
	sent, err := draftOf(l)
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		paths = setPaths(l)
	}
	if slices.Contains(paths, "*") {
		return func(d *manager.Draft) error { *d = sent; return nil }, nil
	}
	var faults []*listeners.Violation
	var edits []func(*manager.Draft)
	for _, path := range paths {
		edit := editPath(path, sent)
		if edit == nil {
			faults = append(faults, &listeners.Violation{Field: "update_mask", Message: path + " cannot be changed; it is one of labels, annotations, spec.desired_state, spec.listen, spec.handler, spec.options, and spec.options.NAME, labels.KEY, annotations.KEY"})
		}
		edits = append(edits, edit)
	}
	if len(faults) > 0 {
		return nil, &manager.Invalid{Violations: faults}
	}
	return func(d *manager.Draft) error {
		for _, edit := range edits {
			edit(d)
		}
		return nil
	}, nil
}

// setPaths are the fields of a request that are set. Options and labels are
// merged into what is there.
func setPaths(l *pb.Listener) (paths []string) {
	add := func(prefix string, keys []string) {
		for _, k := range keys {
			paths = append(paths, prefix+k)
		}
	}
	add("labels.", slices.Collect(maps.Keys(l.GetLabels())))
	add("annotations.", slices.Collect(maps.Keys(l.GetAnnotations())))
	add("spec.options.", slices.Collect(maps.Keys(l.GetSpec().GetOptions())))
	if len(l.GetSpec().GetListen()) > 0 {
		paths = append(paths, "spec.listen")
	}
	if l.GetSpec().GetHandler() != nil {
		paths = append(paths, "spec.handler")
	}
	if l.GetSpec().GetDesiredState() != pb.ListenerSpec_DESIRED_STATE_UNSPECIFIED {
		paths = append(paths, "spec.desired_state")
	}
	return paths
}

// editPath returns the change for one path, nil for one that is not known.
func editPath(path string, sent manager.Draft) func(*manager.Draft) {
	switch path {
	case "labels":
		return func(d *manager.Draft) { d.Labels = sent.Labels }
	case "annotations":
		return func(d *manager.Draft) { d.Annotations = sent.Annotations }
	case "spec.desired_state":
		return func(d *manager.Draft) { d.Stopped = sent.Stopped }
	case "spec.listen":
		return func(d *manager.Draft) { d.Listen = sent.Listen }
	case "spec.handler":
		return func(d *manager.Draft) { d.Handler = sent.Handler }
	case "spec.options":
		return func(d *manager.Draft) { d.Options = sent.Options }
	case "spec":
		return func(d *manager.Draft) {
			d.Stopped, d.Listen, d.Handler, d.Options = sent.Stopped, sent.Listen, sent.Handler, sent.Options
		}
	}
	if key, ok := strings.CutPrefix(path, "spec.options."); ok {
		return func(d *manager.Draft) { d.Options = merged(d.Options, sent.Options, key) }
	}
	if key, ok := strings.CutPrefix(path, "labels."); ok {
		return func(d *manager.Draft) { d.Labels = merged(d.Labels, sent.Labels, key) }
	}
	if key, ok := strings.CutPrefix(path, "annotations."); ok {
		return func(d *manager.Draft) { d.Annotations = merged(d.Annotations, sent.Annotations, key) }
	}
	return nil
}

// merged takes one key over; one that was not sent goes.
func merged[V any](have, sent map[string]V, key string) map[string]V {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]V{}
	}
	delete(out, key)
	if v, ok := sent[key]; ok {
		out[key] = v
	}
	return out
}

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
