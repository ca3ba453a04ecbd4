package service_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// validate_only answers as the change would, and changes nothing.
func TestValidateOnly(t *testing.T) {
	d := serve(t)
	there := d.create("there")
	c := ping(t, there.GetStatus().GetBound()[0])
	taken := there.GetStatus().GetBound()[0].GetUri()
	path := t.TempDir() + "/s"
	d.unchanged(func() {
		made, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{
			ListenerId: "new", Listener: &pb.Listener{Spec: echoSpec("tcp://127.0.0.1:0", "unix://"+path)}, ValidateOnly: true,
		})
		if err != nil || made.GetListener().GetName() != "listeners/new" {
			t.Errorf("create: %v, %v", made, err)
		}
		_, err = d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{
			ListenerId: "new", Listener: &pb.Listener{Spec: echoSpec(taken)}, ValidateOnly: true,
		})
		if meta := wantError(t, err, codes.FailedPrecondition, "ADDRESS_IN_USE"); meta["holder_listener"] != "there" {
			t.Errorf("metadata: %v", meta)
		}
		_, err = d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "there", Listener: &pb.Listener{Spec: echoSpec()}, ValidateOnly: true})
		wantError(t, err, codes.AlreadyExists, "LISTENER_ALREADY_EXISTS")

		update := &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "there", Labels: map[string]string{"a": "b"}, Spec: &pb.ListenerSpec{
				Listen: []string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"}, Options: map[string]*structpb.Value{"backlog": number(5)},
			}},
			ValidateOnly: true, AllowRebind: true,
		}
		changed, err := d.listeners.UpdateListener(d.ctx, update)
		if l := changed.GetListener(); err != nil || l.GetGeneration() != 2 || l.GetLabels()["a"] != "b" || len(l.GetSpec().GetListen()) != 2 {
			t.Errorf("update: %v, %v", changed, err)
		}
		update.Listener.Spec.Listen[1] = taken
		_, err = d.listeners.UpdateListener(d.ctx, update)
		if meta := wantError(t, err, codes.FailedPrecondition, "ADDRESS_IN_USE"); meta["holder_listener"] != "there" {
			t.Errorf("metadata: %v", meta)
		}
		update.AllowRebind = false
		_, err = d.listeners.UpdateListener(d.ctx, update)
		wantError(t, err, codes.FailedPrecondition, "OPTION_NEEDS_REBIND")

		deleted, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "there", ValidateOnly: true, DrainTimeout: durationpb.New(0)})
		if err != nil || deleted.GetListener().GetName() != "listeners/there" {
			t.Errorf("delete: %v, %v", deleted, err)
		}
		set, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{
			Target: "there", ValidateOnly: true, Options: map[string]*structpb.Value{"backlog": number(5), "tcp.no_delay": flag(false)},
		})
		if err != nil || len(set.GetResults()) != 2 || set.GetResults()[0].GetEffective().GetNumberValue() == 5 {
			t.Errorf("set: %v, %v", set, err)
		}
		conns, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{})
		if err != nil || len(conns.GetConnections()) != 1 {
			t.Fatalf("%v, %v", conns, err)
		}
		if _, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{
			Target: conns.GetConnections()[0].GetName(), ValidateOnly: true, Options: map[string]*structpb.Value{"tcp.no_delay": flag(false)},
		}); err != nil {
			t.Error(err)
		}
		options, err := d.tuning.GetOptions(d.ctx, &pb.GetOptionsRequest{Target: conns.GetConnections()[0].GetName()})
		if err != nil || !options.GetOptions()["tcp.no_delay"].GetBoolValue() {
			t.Errorf("%v, %v", options, err)
		}
		closing, err := d.connections.CloseConnections(d.ctx, &pb.CloseConnectionsRequest{All: true, ValidateOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if p, err := closing.Recv(); err != nil || p.GetMatched() != 1 || p.GetClosed() != 0 || !p.GetDone() {
			t.Errorf("close: %v, %v", p, err)
		}
		applied, err := d.listeners.ApplyListeners(d.ctx, &pb.ApplyListenersRequest{
			Listeners: []*pb.Listener{{Name: "there", Labels: map[string]string{"a": "b"}}, {Name: "new", Spec: echoSpec()}}, ValidateOnly: true,
		})
		if err != nil || len(applied.GetChanges()) != 2 {
			t.Errorf("apply: %v, %v", applied, err)
		}
	})
	exchange(t, c)
}

// Every change takes an etag and refuses one that is not current; what it
// refuses it does not do.
func TestEtag(t *testing.T) {
	d := serve(t)
	first := d.create("web").GetEtag()
	update := func(etag string) error {
		_, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "web", Etag: etag, Labels: map[string]string{"etag": etag}},
		})
		return err
	}
	if err := update(first); err != nil {
		t.Fatal(err)
	}
	current := d.get("web").GetEtag()
	if current == first {
		t.Error("the etag did not change")
	}
	d.unchanged(func() {
		errs := map[string]error{"update": update(first)}
		_, errs["start"] = d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web", Etag: first})
		_, errs["stop"] = d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", Etag: first})
		_, errs["delete"] = d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", Etag: first})
		_, errs["set"] = d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Etag: first, Options: map[string]*structpb.Value{"backlog": number(5)}})
		for name, err := range errs {
			t.Run(name, func(t *testing.T) {
				if meta := wantError(t, err, codes.Aborted, "ETAG_MISMATCH"); meta["etag"] != current {
					t.Errorf("metadata %v, want the etag %s", meta, current)
				}
			})
		}
	})
	steps := []func(etag string) (*pb.Listener, error){
		func(etag string) (*pb.Listener, error) {
			_, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Etag: etag, Options: map[string]*structpb.Value{"backlog": number(5)}})
			return d.get("web"), err
		},
		func(etag string) (*pb.Listener, error) {
			resp, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", Etag: etag, DrainTimeout: durationpb.New(0)})
			return resp.GetListener(), err
		},
		func(etag string) (*pb.Listener, error) {
			resp, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web", Etag: etag})
			return resp.GetListener(), err
		},
		func(etag string) (*pb.Listener, error) {
			resp, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", Etag: etag, DrainTimeout: durationpb.New(0)})
			return resp.GetListener(), err
		},
	}
	for i, step := range steps {
		l, err := step(current)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if i < len(steps)-1 && l.GetEtag() == current {
			t.Errorf("step %d left the etag as it was", i)
		}
		current = l.GetEtag()
	}
}

// What a request says of what the daemon sets is not taken over.
func TestOutputOnly(t *testing.T) {
	d := serve(t)
	sent := &pb.Listener{
		Name: "listeners/other", Uid: "mine", Generation: 77, Revision: 99, Spec: echoSpec(),
		Status: &pb.ListenerStatus{State: pb.ListenerStatus_STATE_FAILED, AcceptedTotal: 5},
	}
	made, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "web", Listener: sent})
	if err != nil {
		t.Fatal(err)
	}
	l := made.GetListener()
	if l.GetName() != "listeners/web" || l.GetUid() == "mine" || l.GetGeneration() != 1 || l.GetRevision() == 99 || l.GetStatus().GetAcceptedTotal() != 0 {
		t.Errorf("%v", l)
	}
	sent.Name = "web"
	d.unchanged(func() {
		if _, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{Listener: proto.CloneOf(sent)}); err != nil {
			t.Error(err)
		}
	})
}
