package service

import (
	"context"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

// Who may use sockets sets options of those it has made, and of nothing else.
func TestDataTunesItsSockets(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	data, other := callWith(t, pb.Role_ROLE_DATA), callAs(4243)
	made, err := (&socketService{m: m}).CreateSocket(data, &pb.CreateSocketRequest{Network: pb.Network_NETWORK_TCP})
	if err != nil {
		t.Fatal(err)
	}
	tune := func(ctx context.Context, target string) codes.Code {
		_, err := (&tuningService{m: m}).SetOptions(ctx, &pb.SetOptionsRequest{
			Target: target, Options: map[string]*structpb.Value{"reuse_port": structpb.NewBoolValue(true)},
		})
		return status.Code(toStatus(err))
	}
	for _, x := range []struct {
		ctx    context.Context
		target string
		want   codes.Code
	}{
		{data, made.GetSocket().GetName(), codes.OK},
		{other, made.GetSocket().GetName(), codes.PermissionDenied},
		{data, "listeners/web", codes.PermissionDenied},
		{data, "web", codes.PermissionDenied},
		{data, "connections/1f", codes.PermissionDenied},
		{callWith(t, pb.Role_ROLE_OPERATOR), "listeners/web", codes.NotFound},
	} {
		if got := tune(x.ctx, x.target); got != x.want {
			t.Errorf("%s: %v, want %v", x.target, got, x.want)
		}
	}
}
