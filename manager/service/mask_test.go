package service_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// What a mask names is taken over, cleared if it is not set, and all else stays.
func TestUpdateMask(t *testing.T) {
	d := serve(t)
	options := func(l *pb.Listener) map[string]any {
		m := map[string]any{}
		for k, v := range l.GetSpec().GetOptions() {
			m[k] = v.AsInterface()
		}
		return m
	}
	start := func() *pb.Listener {
		return &pb.Listener{
			Name: "web", Labels: map[string]string{"a": "1", "b": "2"}, Annotations: map[string]string{"n": "x"},
			Spec: withOptions(map[string]*structpb.Value{"backlog": number(10), "idle_timeout": word("5m")}),
		}
	}
	sent := func() *pb.Listener {
		return &pb.Listener{
			Labels: map[string]string{"b": "3", "c": "4"},
			Spec:   &pb.ListenerSpec{Options: map[string]*structpb.Value{"backlog": number(20), "tcp.no_delay": flag(false)}},
		}
	}
	for name, c := range map[string]struct {
		paths   []string
		labels  map[string]string
		options map[string]any
		notes   int // annotations
	}{
		"none":         {nil, map[string]string{"a": "1", "b": "3", "c": "4"}, map[string]any{"backlog": 20., "idle_timeout": "5m0s", "tcp.no_delay": false}, 1},
		"labels":       {[]string{"labels"}, map[string]string{"b": "3", "c": "4"}, map[string]any{"backlog": 10., "idle_timeout": "5m0s"}, 1},
		"a label":      {[]string{"labels.b"}, map[string]string{"a": "1", "b": "3"}, map[string]any{"backlog": 10., "idle_timeout": "5m0s"}, 1},
		"no label":     {[]string{"labels.a"}, map[string]string{"b": "2"}, map[string]any{"backlog": 10., "idle_timeout": "5m0s"}, 1},
		"options":      {[]string{"spec.options"}, map[string]string{"a": "1", "b": "2"}, map[string]any{"backlog": 20., "tcp.no_delay": false}, 1},
		"an option":    {[]string{"spec.options.tcp.no_delay"}, map[string]string{"a": "1", "b": "2"}, map[string]any{"backlog": 10., "idle_timeout": "5m0s", "tcp.no_delay": false}, 1},
		"no option":    {[]string{"spec.options.idle_timeout"}, map[string]string{"a": "1", "b": "2"}, map[string]any{"backlog": 10.}, 1},
		"annotations":  {[]string{"annotations"}, map[string]string{"a": "1", "b": "2"}, map[string]any{"backlog": 10., "idle_timeout": "5m0s"}, 0},
		"several":      {[]string{"labels.a", "annotations.n", "spec.options.backlog"}, map[string]string{"b": "2"}, map[string]any{"backlog": 20., "idle_timeout": "5m0s"}, 0},
		"nothing much": {[]string{"labels.z", "spec.options.linger"}, map[string]string{"a": "1", "b": "2"}, map[string]any{"backlog": 10., "idle_timeout": "5m0s"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			update := func(l *pb.Listener, paths ...string) *pb.Listener {
				l.Name = "web"
				resp, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
					Listener: l, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, AllowMissing: true,
				})
				if err != nil {
					t.Fatal(err)
				}
				return resp.GetListener()
			}
			before := update(start(), "*")
			after := update(sent(), c.paths...)
			inForce, err := d.tuning.GetOptions(d.ctx, &pb.GetOptionsRequest{Target: "web", Names: []string{"backlog"}})
			if err != nil {
				t.Fatal(err)
			}
			same := len(after.GetLabels()) == len(c.labels) && len(options(after)) == len(c.options) && len(after.GetAnnotations()) == c.notes
			for k, v := range c.labels {
				same = same && after.GetLabels()[k] == v
			}
			for k, v := range c.options {
				same = same && options(after)[k] == v
			}
			if !same || inForce.GetOptions()["backlog"].GetNumberValue() != c.options["backlog"] || !slices.Equal(after.GetSpec().GetListen(), before.GetSpec().GetListen()) {
				t.Errorf("%v, %v", after, inForce)
			}
			if after.GetStatus().GetBound()[0].GetPort() != before.GetStatus().GetBound()[0].GetPort() {
				t.Error("it has another socket")
			}
		})
	}
}

// Handler and desired state are changed where the listener stands; addresses
// that stay keep their sockets.
func TestUpdateLive(t *testing.T) {
	d := serve(t)
	made := d.create("web")
	kept := made.GetStatus().GetBound()[0].GetUri()
	c := ping(t, made.GetStatus().GetBound()[0])
	update := func(spec *pb.ListenerSpec, rebind bool) *pb.Listener {
		t.Helper()
		resp, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{Listener: &pb.Listener{Name: "web", Spec: spec}, AllowRebind: rebind})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetListener()
	}
	l := update(&pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"}}, true)
	if got := l.GetStatus().GetBound(); len(got) != 2 || got[0].GetUri() != kept || l.GetGeneration() != 2 {
		t.Errorf("%v", l)
	}
	exchange(t, c)
	ping(t, l.GetStatus().GetBound()[1])
	reply := &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: []byte("pong")}}}
	l = update(&pb.ListenerSpec{Handler: reply}, false)
	if l.GetSpec().GetHandler().GetReply() == nil || l.GetStatus().GetBound()[0].GetUri() != kept {
		t.Errorf("%v", l)
	}
	l = update(&pb.ListenerSpec{Listen: []string{"tcp://127.0.0.2:0"}}, true)
	if got := l.GetStatus().GetBound(); len(got) != 1 || got[0].GetIp() != "127.0.0.2" {
		t.Errorf("%v", got)
	}
	// What does not take effect without a new socket is refused as a whole.
	d.unchanged(func() {
		_, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{Listener: &pb.Listener{Name: "web", Spec: &pb.ListenerSpec{
			Options: map[string]*structpb.Value{"backlog": number(5), "reuse_port": flag(true), "tcp.no_delay": flag(false)},
		}}})
		if meta := wantError(t, err, codes.FailedPrecondition, "OPTION_NEEDS_REBIND"); meta["option"] != "reuse_port" {
			t.Errorf("metadata: %v", meta)
		}
	})
	l = update(&pb.ListenerSpec{DesiredState: pb.ListenerSpec_DESIRED_STATE_STOPPED}, false)
	if l.GetSpec().GetDesiredState() != pb.ListenerSpec_DESIRED_STATE_STOPPED {
		t.Errorf("%v", l)
	}
}

// allow_missing makes what is not there, under the name that was given.
func TestAllowMissing(t *testing.T) {
	d := serve(t)
	for range 2 {
		resp, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "listeners/web", Spec: echoSpec()}, AllowMissing: true,
		})
		if err != nil || resp.GetListener().GetName() != "listeners/web" || resp.GetListener().GetGeneration() != 1 {
			t.Errorf("%v, %v", resp, err)
		}
	}
	_, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{Listener: &pb.Listener{Spec: echoSpec()}, AllowMissing: true})
	wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "listener.name")
	if n := len(d.list()); n != 1 {
		t.Errorf("%d listeners", n)
	}
	if resp, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "nobody", AllowMissing: true}); err != nil || resp.GetListener() != nil {
		t.Errorf("%v, %v", resp, err)
	}
}
