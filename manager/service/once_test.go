package service_test

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", n) }

// The same request id again is given the first answer, and nothing happens.
func TestRequestIDTwice(t *testing.T) {
	d := serve(t)
	create := &pb.CreateListenerRequest{Listener: &pb.Listener{Spec: echoSpec()}, RequestId: uuid(1)} // the server chooses the name
	first, err := d.listeners.CreateListener(d.ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	name := first.GetListener().GetName()
	d.unchanged(func() {
		again, err := d.listeners.CreateListener(d.ctx, create)
		if err != nil || !proto.Equal(first, again) {
			t.Errorf("%v, %v; want %v", again, err, first)
		}
	})
	// Start, stop, update, set: each once, though the state has changed since.
	stop := &pb.StopListenerRequest{Name: name, RequestId: uuid(2), DrainTimeout: durationpb.New(0)}
	stopped, err := d.listeners.StopListener(d.ctx, stop)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return d.list()[0].GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: name, RequestId: uuid(3)}); err != nil {
		t.Fatal(err)
	}
	set := &pb.SetOptionsRequest{Target: name, Options: map[string]*structpb.Value{"backlog": number(5)}, RequestId: uuid(4)}
	wasSet, err := d.tuning.SetOptions(d.ctx, set)
	if err != nil {
		t.Fatal(err)
	}
	update := &pb.UpdateListenerRequest{Listener: &pb.Listener{Name: name, Labels: map[string]string{"a": "b"}}, RequestId: uuid(5)}
	updated, err := d.listeners.UpdateListener(d.ctx, update)
	if err != nil {
		t.Fatal(err)
	}
	d.unchanged(func() {
		if again, err := d.listeners.StopListener(d.ctx, stop); err != nil || !proto.Equal(again, stopped) {
			t.Errorf("stop: %v, %v", again, err)
		}
		if again, err := d.tuning.SetOptions(d.ctx, set); err != nil || !proto.Equal(again, wasSet) {
			t.Errorf("set: %v, %v", again, err)
		}
		if again, err := d.listeners.UpdateListener(d.ctx, update); err != nil || !proto.Equal(again, updated) {
			t.Errorf("update: %v, %v", again, err)
		}
	})
	// Delete: the second would be NOT_FOUND without an id.
	del := &pb.DeleteListenerRequest{Name: name, RequestId: uuid(6), DrainTimeout: durationpb.New(0)}
	for range 2 {
		if resp, err := d.listeners.DeleteListener(d.ctx, del); err != nil || resp.GetListener().GetName() != name {
			t.Errorf("delete: %v, %v", resp, err)
		}
		eventually(t, func() bool { return len(d.list()) == 0 })
	}
}

// An id is for one request: another one with it is refused, a failed one may be
// tried again.
func TestRequestIDReused(t *testing.T) {
	d := serve(t)
	d.create("web")
	id := uuid(1)
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web", RequestId: id}); err != nil {
		t.Fatal(err)
	}
	d.unchanged(func() {
		_, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "other", RequestId: id})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "request_id")
		_, err = d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", RequestId: id})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "request_id")
		for _, bad := range []string{"x", "00000000-0000-4000-8000-00000000000", uuid(1) + "0", "00000000_0000_4000_8000_000000000001"} {
			_, err = d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", RequestId: bad})
			wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "request_id")
		}
	})
	create := &pb.CreateListenerRequest{ListenerId: "web", Listener: &pb.Listener{Spec: echoSpec()}, RequestId: uuid(2)}
	_, err := d.listeners.CreateListener(d.ctx, create)
	wantError(t, err, codes.AlreadyExists, "LISTENER_ALREADY_EXISTS")
	if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", DrainTimeout: durationpb.New(0)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(d.list()) == 0 })
	if _, err := d.listeners.CreateListener(d.ctx, create); err != nil {
		t.Errorf("tried again: %v", err)
	}
}

// Many clients that send the same request at the same time make one listener,
// and all are given it.
func TestRequestIDAtOnce(t *testing.T) {
	d := serve(t)
	const clients = 32
	var wg sync.WaitGroup
	answers := make([]*pb.CreateListenerResponse, clients)
	for i := range clients {
		wg.Go(func() {
			resp, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{Listener: &pb.Listener{Spec: echoSpec()}, RequestId: uuid(1)})
			if err != nil {
				t.Error(err)
			}
			answers[i] = resp
		})
	}
	wg.Wait()
	for _, a := range answers {
		if !proto.Equal(a, answers[0]) {
			t.Errorf("%v, %v", a, answers[0])
		}
	}
	if n := len(d.list()); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

// Answers are kept for as long as there is room, and no longer.
func TestRequestIDsAreBounded(t *testing.T) {
	d := serve(t)
	d.create("web")
	for i := range 1100 {
		if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web", RequestId: uuid(i)}); err != nil {
			t.Fatal(err)
		}
	}
	// The last is known, the first forgotten: it may be used for another request.
	_, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "other", RequestId: uuid(1099)})
	wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "request_id")
	_, err = d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "other", RequestId: uuid(0)})
	wantError(t, err, codes.NotFound, "LISTENER_NOT_FOUND")
}
