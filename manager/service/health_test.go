package service_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
	unknown    = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
)

// The daemon is the service "", a listener is listeners/NAME: it serves while it
// is bound.
func TestHealth(t *testing.T) {
	d := serve(t)
	d.create("web")
	d.create("off")
	d.halt("off")
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": serving, "sockmgr.v1.ListenerService": serving, "listeners/web": serving, "listeners/off": notServing,
	} {
		resp, err := d.health.Check(d.ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil || resp.GetStatus() != want {
			t.Errorf("%s: %v, %v; want %v", service, resp, err, want)
		}
	}
	for _, service := range []string{"listeners/nobody", "some.Service"} {
		if _, err := d.health.Check(d.ctx, &healthpb.HealthCheckRequest{Service: service}); status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v", service, err)
		}
	}
	list, err := d.health.List(d.ctx, &healthpb.HealthListRequest{})
	got := list.GetStatuses()
	if err != nil || len(got) != 3 || got[""].GetStatus() != serving || got["listeners/web"].GetStatus() != serving || got["listeners/off"].GetStatus() != notServing {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestHealthWatch(t *testing.T) {
	d := serve(t)
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	stream, err := d.health.Watch(ctx, &healthpb.HealthCheckRequest{Service: "listeners/web"})
	if err != nil {
		t.Fatal(err)
	}
	want := func(s healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if resp, err := stream.Recv(); err != nil || resp.GetStatus() != s {
			t.Fatalf("%v, %v; want %v", resp, err, s)
		}
	}
	want(unknown) // it is no error: the listener may come
	d.create("web")
	want(serving)
	d.create("other") // is nobody's business here
	d.label("web", "edge")
	d.halt("web")
	want(notServing)
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	want(serving)
	d.remove("web")
	for resp, err := stream.Recv(); resp.GetStatus() != unknown; resp, err = stream.Recv() { // it may be seen while it closes
		if err != nil || resp.GetStatus() != notServing {
			t.Fatalf("%v, %v", resp, err)
		}
	}
}

// A client can ask what there is: grpcurl list.
func TestReflection(t *testing.T) {
	d := serve(t)
	stream, err := reflectionpb.NewServerReflectionClient(d.conn).ServerReflectionInfo(d.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{"sockmgr.v1.ListenerService", "sockmgr.v1.ConnectionService", "sockmgr.v1.TuningService", "sockmgr.v1.DaemonService", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %s", want, strings.Join(names, ", "))
		}
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "sockmgr.v1.CreateListenerRequest"},
	}); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("%v, %v", resp, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
