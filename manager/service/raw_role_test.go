package service

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// callWith is the context of a call by somebody with that role.
func callWith(t *testing.T, role pb.Role) context.Context {
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: caller{who: access.Identity{IsUser: true, UID: 4242}, granted: role, grants: []access.Grant{{Role: access.Role(role)}}}})
}

// Raw options are for admins, however they come: alone, in a spec, as another
// value or as none. Who may change the rest may do that beside them.
func TestRawNeedsAdmin(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	tuning, list := &tuningService{m: m}, &listenerService{m: m}
	operator, admin := callWith(t, pb.Role_ROLE_OPERATOR), callWith(t, pb.Role_ROLE_ADMIN)
	id := "" // of a listener that each call has of its own
	const name = "so:SOL_SOCKET:SO_NOFCS"
	raw := map[string]*structpb.Value{"so:1:43": structpb.NewNumberValue(1)}
	of := func(options map[string]*structpb.Value) *pb.Listener {
		echo := &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}
		return &pb.Listener{Name: id, Spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: echo, Options: options}}
	}
	for what, call := range map[string]func(ctx context.Context) error{
		"create": func(ctx context.Context) error {
			_, err := list.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: "new", Listener: of(raw)})
			return err
		},
		"tune": func(ctx context.Context) error {
			_, err := tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: id, Options: raw})
			return err
		},
		"give back": func(ctx context.Context) error {
			_, err := tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: id, Options: map[string]*structpb.Value{name: structpb.NewNullValue()}})
			return err
		},
		"update": func(ctx context.Context) error {
			_, err := list.UpdateListener(ctx, &pb.UpdateListenerRequest{Listener: of(map[string]*structpb.Value{name: structpb.NewNumberValue(2)})})
			return err
		},
		"take out": func(ctx context.Context) error {
			_, err := list.UpdateListener(ctx, &pb.UpdateListenerRequest{Listener: of(nil), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec.options"}}})
			return err
		},
		"apply": func(ctx context.Context) error {
			resp, err := list.ApplyListeners(ctx, &pb.ApplyListenersRequest{Listeners: []*pb.Listener{of(map[string]*structpb.Value{name: structpb.NewNumberValue(3)})}, Manager: "me"})
			if code := resp.GetChanges()[0].GetError().GetCode(); err == nil && code != "" {
				err = listeners.Reason(code)
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			id = strings.ReplaceAll(what, " ", "-")
			if _, err := list.CreateListener(admin, &pb.CreateListenerRequest{ListenerId: id, Listener: of(raw)}); err != nil {
				t.Fatal(err)
			}
			for _, role := range []pb.Role{pb.Role_ROLE_UNSPECIFIED, pb.Role_ROLE_VIEWER, pb.Role_ROLE_OPERATOR} {
				err := call(callWith(t, role))
				if !errors.Is(err, listeners.RoleMissing) || what != "apply" && status.Code(toStatus(err)) != codes.PermissionDenied {
					t.Errorf("as %s: %v", roleName(role), err)
				}
			}
			info, err := m.Get(t.Context(), id, false)
			if err != nil || info.Spec.Options[name].Int() != 1 {
				t.Errorf("it changed: %v, %v", info.Spec.Options, err)
			}
			// An operator changes others, and sends back what is there.
			if _, err := list.UpdateListener(operator, &pb.UpdateListenerRequest{Listener: of(map[string]*structpb.Value{name: structpb.NewNumberValue(1), "backlog": structpb.NewNumberValue(7)})}); err != nil {
				t.Errorf("as operator: %v", err)
			}
			if _, err := tuning.GetOptions(callWith(t, pb.Role_ROLE_VIEWER), &pb.GetOptionsRequest{Target: id, Names: []string{"so:1:43"}}); err != nil {
				t.Errorf("reading: %v", err)
			}
			if err := call(admin); err != nil {
				t.Errorf("as admin: %v", err)
			}
		})
	}
}
