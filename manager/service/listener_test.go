package service_test

import (
	"net"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func portText(a *pb.SocketAddress) string { return strconv.Itoa(int(a.GetPort())) }

func TestListenerLife(t *testing.T) {
	d := serve(t)
	made, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "web", Listener: &pb.Listener{
		Labels: map[string]string{"tier": "edge"}, Annotations: map[string]string{"note": "for people"},
		Spec: &pb.ListenerSpec{
			Listen: []string{"tcp://127.0.0.1:0"}, Handler: echoSpec().GetHandler(),
			Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(7)},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	l := made.GetListener()
	if l.GetName() != "listeners/web" || l.GetUid() == "" || l.GetEtag() == "" || l.GetGeneration() != 1 ||
		l.GetStatus().GetState() != pb.ListenerStatus_STATE_RUNNING || len(l.GetStatus().GetBound()) != 1 ||
		l.GetStatus().GetAcceptQueueLimit() != 7 || l.GetLabels()["tier"] != "edge" || l.GetAnnotations()["note"] == "" ||
		l.GetSpec().GetDesiredState() != pb.ListenerSpec_DESIRED_STATE_RUNNING || l.GetCreateTime() == nil {
		t.Errorf("made: %v", l)
	}
	if s := l.GetStatus().GetSockets(); len(s) != 1 || s[0].GetFd() <= 0 {
		t.Errorf("sockets of what was just made: %v", s)
	}
	listed, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{})
	if err != nil || len(listed.GetListeners()[0].GetStatus().GetSockets()) != 0 {
		t.Errorf("the basic view has sockets: %v, %v", listed, err)
	}
	ping(t, l.GetStatus().GetBound()[0]).Close()
	full := d.get("web")
	socket := full.GetStatus().GetSockets()[0]
	if socket.GetFd() <= 0 || socket.GetInode() == 0 || socket.GetTcpState() != pb.TcpState_TCP_STATE_LISTEN ||
		socket.GetQueue().GetAcceptQueueLimit() != 7 || socket.GetListener() != "listeners/web" {
		t.Errorf("socket: %v", socket)
	}
	if full.GetStatus().GetAcceptedTotal() != 1 || full.GetStatus().GetReceivedBytes() != 4 || full.GetStatus().GetSentBytes() != 4 {
		t.Errorf("counted: %v", full.GetStatus())
	}

	stop, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", DrainTimeout: durationpb.New(0)})
	if err != nil || stop.GetListener().GetSpec().GetDesiredState() != pb.ListenerSpec_DESIRED_STATE_STOPPED || stop.GetListener().GetGeneration() != 2 {
		t.Errorf("stop: %v, %v", stop, err)
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })
	if c, err := net.Dial("tcp", "127.0.0.1:"+portText(l.GetStatus().GetBound()[0])); err == nil {
		c.Close()
		t.Error("it is stopped and answers")
	}
	// Stopped again, it is as it was.
	d.unchanged(func() {
		if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "listeners/web"}); err != nil {
			t.Error(err)
		}
	})
	start, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"})
	if err != nil || start.GetListener().GetStatus().GetState() != pb.ListenerStatus_STATE_RUNNING || start.GetListener().GetGeneration() != 3 {
		t.Errorf("start: %v, %v", start, err)
	}
	d.unchanged(func() {
		if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
			t.Error(err)
		}
	})
	gone, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", DrainTimeout: durationpb.New(0)})
	if err != nil || gone.GetListener().GetUid() != l.GetUid() {
		t.Errorf("delete: %v, %v", gone, err)
	}
	eventually(t, func() bool { return len(d.list()) == 0 })
	if again := d.create("web"); again.GetUid() == l.GetUid() {
		t.Error("one made anew has the uid of the old one")
	}
}

func TestNames(t *testing.T) {
	d := serve(t)
	chosen := d.create("")
	if id := chosen.GetName(); len(id) <= len("listeners/") {
		t.Errorf("the server chose %q", id)
	}
	if got := d.create("listeners/with.all_the-letters9").GetName(); got != "listeners/with.all_the-letters9" {
		t.Error(got)
	}
	for _, id := range []string{"a/b", "../web", "/web", "Web", ".web", "-web", "wéb", "a b", "a\nb", "a\x1b[31m", "listeners/listeners/web", string(make([]byte, 64))} {
		_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: id, Listener: &pb.Listener{Spec: echoSpec()}})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "listener_id")
	}
	if n := len(d.list()); n != 2 {
		t.Errorf("%d listeners", n)
	}
}

// A drain ends with the last connection, or when its time does; told again, it
// ends sooner.
func TestDrain(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	c := ping(t, l.GetStatus().GetBound()[0])
	hour := durationpb.New(3600e9)
	resp, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", DrainTimeout: hour})
	if err != nil || resp.GetListener().GetStatus().GetState() != pb.ListenerStatus_STATE_DRAINING || resp.GetListener().GetStatus().GetActiveConnections() != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	exchange(t, c) // it goes on
	c.Close()
	eventually(t, func() bool { return d.get("web").GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })

	start, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	c = ping(t, start.GetListener().GetStatus().GetBound()[0])
	if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", DrainTimeout: hour}); err != nil {
		t.Fatal(err)
	}
	// While it goes nothing else can be done to it, and its name is taken.
	_, err = d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"})
	wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
	_, err = d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web"})
	wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
	_, err = d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{Listener: &pb.Listener{Name: "web", Labels: map[string]string{"a": "b"}}})
	wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
	_, err = d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(5)}})
	wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
	_, err = d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "web", Listener: &pb.Listener{Spec: echoSpec()}})
	wantError(t, err, codes.AlreadyExists, "LISTENER_ALREADY_EXISTS")

	// Only checked, a second delete ends nothing.
	if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", DrainTimeout: durationpb.New(0), ValidateOnly: true}); err != nil {
		t.Error(err)
	}
	exchange(t, c)
	if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", DrainTimeout: durationpb.New(0)}); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it was not closed")
	}
	eventually(t, func() bool { return len(d.list()) == 0 })
}
