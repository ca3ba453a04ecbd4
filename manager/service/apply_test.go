package service_test

import (
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// apply returns what was done to each, as CREATED or OPTION_UNKNOWN.
func (d *daemon) apply(r *pb.ApplyListenersRequest) map[string]string {
	d.t.Helper()
	resp, err := d.listeners.ApplyListeners(d.ctx, r)
	if err != nil {
		d.t.Fatal(err)
	}
	done := map[string]string{}
	for _, c := range resp.GetChanges() {
		done[strings.TrimPrefix(c.GetName(), "listeners/")] = strings.TrimPrefix(c.GetAction().String(), "ACTION_")
		if c.GetAction() == pb.ListenerChange_ACTION_FAILED {
			done[strings.TrimPrefix(c.GetName(), "listeners/")] = c.GetError().GetCode()
		}
	}
	return done
}

func TestApply(t *testing.T) {
	d := serve(t)
	d.create("mine")
	wish := func(id string, options map[string]*structpb.Value) *pb.Listener {
		return &pb.Listener{Name: id, Spec: withOptions(options)}
	}
	steps := []struct {
		request *pb.ApplyListenersRequest
		want    map[string]string
	}{
		{&pb.ApplyListenersRequest{Listeners: []*pb.Listener{wish("web", nil), wish("api", nil)}, Manager: "file"}, map[string]string{"web": "CREATED", "api": "CREATED"}},
		{&pb.ApplyListenersRequest{Listeners: []*pb.Listener{wish("web", nil), wish("api", map[string]*structpb.Value{"backlog": number(5)})}, Manager: "file"}, map[string]string{"web": "UNCHANGED", "api": "UPDATED"}},
		// One fault does not keep the others from being made.
		{
			&pb.ApplyListenersRequest{Listeners: []*pb.Listener{wish("web", map[string]*structpb.Value{"backlg": number(5)}), wish("new", nil)}, Manager: "file"},
			map[string]string{"web": "OPTION_UNKNOWN", "new": "CREATED"},
		},
		// What another has applied is not taken over.
		{
			&pb.ApplyListenersRequest{Listeners: []*pb.Listener{wish("web", nil), wish("api", map[string]*structpb.Value{"backlog": number(6)})}, Manager: "other"},
			map[string]string{"web": "UNCHANGED", "api": "MANAGER_CONFLICT"},
		},
		{
			&pb.ApplyListenersRequest{Listeners: []*pb.Listener{wish("web", map[string]*structpb.Value{"reuse_port": flag(true)}), wish("api", map[string]*structpb.Value{"backlg": number(6)})}, Manager: "other"},
			map[string]string{"web": "MANAGER_CONFLICT", "api": "OPTION_UNKNOWN"},
		},
		// Pruned is what the set had, and has no longer.
		{&pb.ApplyListenersRequest{Listeners: []*pb.Listener{wish("web", nil)}, Manager: "file", Prune: true}, map[string]string{"web": "UNCHANGED", "api": "DELETED", "new": "DELETED"}},
	}
	for i, s := range steps {
		if got := d.apply(s.request); !maps.Equal(got, s.want) {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
	eventually(t, func() bool { return len(d.list()) == 2 })

	// Atomic: all or nothing.
	d.unchanged(func() {
		_, err := d.listeners.ApplyListeners(d.ctx, &pb.ApplyListenersRequest{
			Listeners: []*pb.Listener{wish("one", nil), wish("web", map[string]*structpb.Value{"backlog": number(0)})}, Manager: "file", Atomic: true,
		})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "spec.options.backlog")
		taken := &pb.Listener{Name: "two", Spec: echoSpec(d.get("mine").GetStatus().GetBound()[0].GetUri())}
		_, err = d.listeners.ApplyListeners(d.ctx, &pb.ApplyListenersRequest{
			Listeners: []*pb.Listener{wish("one", nil), wish("web", map[string]*structpb.Value{"backlog": number(9)}), taken}, Manager: "file", Atomic: true,
		})
		wantError(t, err, codes.FailedPrecondition, "ADDRESS_IN_USE")
	})
}

// What happens is told, with who caused it and by which request; refused calls
// are not events.
func TestEvents(t *testing.T) {
	d := serve(t)
	if _, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{
		ListenerId: "web", Listener: &pb.Listener{Spec: echoSpec()}, RequestId: uuid(1),
	}); err != nil {
		t.Fatal(err)
	}
	d.set(t, "listeners/web", "backlog", number(5))
	_, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "nobody"})
	wantError(t, err, codes.NotFound, "LISTENER_NOT_FOUND")

	if none, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{Filter: `resource = "listeners/nobody"`}); err != nil || len(none.GetEvents()) != 0 {
		t.Errorf("%v, %v", none, err)
	}
	list, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{Filter: `resource = "listeners/web"`})
	if err != nil || len(list.GetEvents()) < 2 {
		t.Fatalf("%v, %v", list, err)
	}
	oldest := list.GetEvents()[len(list.GetEvents())-1]
	if oldest.GetType() != "listener.created" || !strings.HasPrefix(oldest.GetActor(), "uid:") || oldest.GetRequestId() != uuid(1) ||
		oldest.GetSeverity() != pb.Event_SEVERITY_INFO || oldest.GetTime() == nil || oldest.GetMessage() == "" {
		t.Errorf("%v", oldest)
	}
	for i := 1; i < len(list.GetEvents()); i++ { // newest first
		if list.GetEvents()[i-1].GetRevision() <= list.GetEvents()[i].GetRevision() {
			t.Errorf("%v", list)
		}
	}
	tuned, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{Filter: `type = "option.*"`})
	if err != nil || len(tuned.GetEvents()) != 1 || tuned.GetEvents()[0].GetAttributes()["option"] != "backlog" {
		t.Errorf("%v, %v", tuned, err)
	}
	seen := 0
	for token := ""; ; seen++ {
		page, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{PageSize: 1, PageToken: token})
		if err != nil || len(page.GetEvents()) != 1 {
			t.Fatalf("%v, %v", page, err)
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if all, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{}); err != nil || len(all.GetEvents()) != seen+1 {
		t.Errorf("%d on pages of one; %v, %v", seen+1, all, err)
	}

	stream, err := d.events.WatchEvents(d.ctx, &pb.WatchEventsRequest{ResumeToken: list.GetResumeToken(), Filter: `type = "listener.deleted"`})
	if err != nil {
		t.Fatal(err)
	}
	d.remove("web")
	if m, err := stream.Recv(); err != nil || m.GetEvent().GetResource() != "listeners/web" || m.GetResumeToken() == "" {
		t.Errorf("%v, %v", m, err)
	}
	tail, err := d.events.WatchEvents(d.ctx, &pb.WatchEventsRequest{Tail: 2, Filter: `type = "listener.deleted"`})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := tail.Recv(); err != nil || m.GetEvent().GetType() != "listener.deleted" {
		t.Errorf("%v, %v", m, err)
	}
}
