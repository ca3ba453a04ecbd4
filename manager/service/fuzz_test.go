package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// FuzzConvert: any request is refused with a reason, or means something that is
// returned in words which mean the same.
func FuzzConvert(f *testing.F) {
	for _, r := range []*pb.CreateListenerRequest{
		{},
		{ListenerId: "web", Listener: &pb.Listener{
			Labels: map[string]string{"tier": "edge"}, Annotations: map[string]string{"a": "b"},
			Spec: &pb.ListenerSpec{
				Listen:  []string{"tcp://127.0.0.1:0", "udp4://:7", "tcp6://[fe80::1%25lo]:1", "unix:///run/x.sock", "unixpacket://@x"},
				Access:  &pb.AccessPolicy{Allow: []string{"10.0.0.0/8", "::1"}, Deny: []string{"::ffff:10.1.0.0/112"}, Reset_: true, AllowUids: []uint32{7, 0}},
				Handler: &pb.Handler{Kind: &pb.Handler_Reply{Reply: &pb.ReplyHandler{Payload: []byte("x\xff"), KeepOpen: true}}},
				Options: map[string]*structpb.Value{
					"backlog": structpb.NewNumberValue(7), "idle_timeout": structpb.NewStringValue("1m30s"), "tcp.no_delay": structpb.NewBoolValue(false),
					"receive_buffer_bytes": structpb.NewStringValue("4MiB"), "unix.mode": structpb.NewStringValue("0600"), "linger": structpb.NewNullValue(),
				},
			},
		}},
		{ListenerId: "http", Listener: &pb.Listener{Spec: &pb.ListenerSpec{
			Listen: []string{"tcp://[::]:80"}, DesiredState: pb.ListenerSpec_DESIRED_STATE_STOPPED,
			Handler: &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Status: 404, Headers: map[string]string{"X-A": "b"}, Body: []byte("body")}}},
		}}},
	} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			f.Error(err)
		}
	})
	// Stopped and checked only: nothing is bound.
	convert := func(l *pb.Listener) (*pb.Listener, error) {
		d, err := draftOf(l)
		if err != nil {
			return nil, err
		}
		d.Desired = manager.WantStopped
		info, _, err := m.Create(context.Background(), "web", d, true)
		return infoToPB(info), err
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r pb.CreateListenerRequest
		if proto.Unmarshal(data, &r) != nil {
			return
		}
		once, err := convert(r.GetListener())
		if err != nil {
			st, _ := status.FromError(toStatus(err))
			if st.Code() != codes.InvalidArgument || proto.Size(st.Proto()) > 5<<10 {
				t.Errorf("%v: %d bytes", err, proto.Size(st.Proto()))
			}
			return
		}
		twice, err := convert(once)
		if err != nil {
			t.Fatalf("%v is refused, and was returned: %v", once, err)
		}
		if !proto.Equal(once.GetSpec(), twice.GetSpec()) || !proto.Equal(&pb.Listener{Labels: once.GetLabels(), Annotations: once.GetAnnotations()}, &pb.Listener{Labels: twice.GetLabels(), Annotations: twice.GetAnnotations()}) {
			t.Errorf("%v\n%v", once, twice)
		}
	})
}

// FuzzFilter: any filter is refused with a reason, or can be applied to any
// message without a panic; a filter and its negation are never both true.
func FuzzFilter(f *testing.F) {
	for _, text := range []string{
		"", "status.state = running", `labels.tier = "edge" AND NOT name = "listeners/*"`, "generation > 1 OR (status.active_connections <= 5)",
		`create_time > "2020-01-01T00:00:00Z"`, "spec.listen : x", "status.bound.port = 5", "labels.a.b != c", "-name = x", "a b", "foo(x)", "name = -5",
		"spec.handler.http.body = x", "spec.handler.reply.keep_open = true", "spec.options.backlog = 5", `name = "\x00"`, "(((", "status.retry_time = 5",
	} {
		f.Add(text)
	}
	now := timestamppb.New(time.Unix(1_700_000_000, 0))
	messages := []proto.Message{
		&pb.Listener{},
		&pb.Listener{
			Name: "listeners/web", Labels: map[string]string{"tier": "edge", "a.b": "c"}, Generation: 5, CreateTime: now,
			Spec:   &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: []byte("x")}}}},
			Status: &pb.ListenerStatus{State: pb.ListenerStatus_STATE_RUNNING, ActiveConnections: 3},
		},
		&pb.Connection{},
		&pb.Connection{Name: "connections/1f", Remote: &pb.SocketAddress{Ip: "10.0.0.7", Port: 5}, WaitsFor: []string{"readable"}, TcpInfo: &pb.TcpInfo{}},
		&pb.Event{}, &pb.Event{Revision: 5, Severity: pb.Event_SEVERITY_ERROR, Time: now},
	}
	kinds := map[protoreflect.FullName]protoreflect.MessageDescriptor{}
	for _, m := range messages {
		kinds[m.ProtoReflect().Descriptor().FullName()] = m.ProtoReflect().Descriptor()
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, kind := range kinds {
			want, err := parseFilter(text, kind)
			if err != nil {
				if !errors.Is(err, listeners.FilterInvalid) || proto.Size(status.Convert(toStatus(err)).Proto()) > 5<<10 {
					t.Errorf("%q: %v", text, err)
				}
				continue
			}
			not, err := parseFilter("NOT ("+strings.TrimSpace(text)+")", kind)
			if strings.TrimSpace(text) != "" && len(text) < maxFilter/2 && strings.Count(text, "(") < maxDepth && err != nil {
				t.Errorf("%q is a filter, and its negation is none: %v", text, err)
			}
			for _, m := range messages {
				if m.ProtoReflect().Descriptor().FullName() != name {
					continue
				}
				if yes := want.match(m); yes && not != nil && not.match(m) {
					t.Errorf("%q and its negation match %v", text, m)
				}
			}
		}
	})
}
