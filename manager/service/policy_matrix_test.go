package service

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// matrixCaller is somebody with that role, whom the policy narrows.
func matrixCaller(t *testing.T, rules ...access.Rule) context.Context {
	t.Helper()
	for i := range rules {
		rules[i].Certificate = "dns:x"
	}
	r, err := access.NewRules(0, rules)
	if err != nil {
		t.Fatal(err)
	}
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: newCaller(r, access.Identity{Names: []string{"dns:x"}})})
}

// reaches calls a method as both kinds of interceptor have it, and tells whether
// it was let through.
func (g *guard) reaches(ctx context.Context, method string, req proto.Message) error {
	reached := false
	_, unary := g.unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
		reached = true
		return nil, nil
	})
	if reached != (unary == nil) {
		return fmt.Errorf("%s: %w, reached %v", method, unary, reached)
	}
	stream := g.stream(nil, messageStream{stubStream{ctx: ctx}, req}, &grpc.StreamServerInfo{FullMethod: method}, func(_ any, s grpc.ServerStream) error {
		return s.RecvMsg(proto.Clone(req))
	})
	if status.Code(stream) != status.Code(unary) {
		return fmt.Errorf("%s: %w as a stream, else %w", method, stream, unary)
	}
	return unary
}

// messageStream has one message.
type messageStream struct {
	stubStream
	msg proto.Message
}

func (s messageStream) RecvMsg(m any) error {
	proto.Merge(m.(proto.Message), s.msg)
	return nil
}

// Every method that is served, by every role, inside and outside of a policy.
func TestEveryMethodEveryRoleEveryPolicy(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	admin := callAs(0)
	list, tuning, sockets := &listenerService{m: m}, &tuningService{m: m}, &socketService{m: m}
	tries := map[string]string{}
	for _, name := range []string{"web-1", "db"} {
		if _, err := list.CreateListener(admin, &pb.CreateListenerRequest{ListenerId: name, Listener: &pb.Listener{Spec: specOf("tcp://127.0.0.1:0", nil)}}); err != nil {
			t.Fatal(err)
		}
		tried, err := tuning.SetOptions(admin, &pb.SetOptionsRequest{Target: name, Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(5)}, RevertAfter: durationpb.New(manager.GreatestTry)})
		if err != nil {
			t.Fatal(err)
		}
		tries[name] = tried.GetChangeId()
	}
	made, err := sockets.CreateSocket(admin, &pb.CreateSocketRequest{Network: pb.Network_NETWORK_TCP})
	if err != nil {
		t.Fatal(err)
	}
	rows := policyRows(tries["web-1"], tries["db"], made.GetSocket().GetName())
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles(), m: m, audit: newAuditor(hclog.NewNullLogger(), nil)}
	calls := 0
	for _, method := range served(t) {
		short, ours := strings.CutPrefix(method, "/sockmgr.v1.")
		if !ours {
			continue // health and reflection: roles alone
		}
		row, ok := rows[short]
		if !ok {
			t.Errorf("%s has no row: say what a policy has to say of it", method)
			continue
		}
		delete(rows, short)
		for role := access.Nobody; role <= access.Admin; role++ {
			var ctx context.Context
			if role == access.Nobody {
				ctx = matrixCaller(t)
			} else {
				ctx = matrixCaller(t, access.Rule{Role: role.String(), Policy: testPolicy()})
			}
			enough := pb.Role(role) >= g.roles[method]
			for _, req := range row.inside {
				calls++
				switch err := g.reaches(ctx, method, req); {
				case enough && err != nil:
					t.Errorf("%s by %v, inside: %v", method, role, err)
				case !enough && !isDenied(err, listeners.RoleMissing):
					t.Errorf("%s by %v: %v", method, role, err)
				}
			}
			for against, some := range row.outside {
				for _, req := range some {
					calls++
					want := listeners.PolicyDenied
					if !enough {
						want = listeners.RoleMissing
					}
					if err := g.reaches(ctx, method, req); !isDenied(err, want) || enough && !strings.Contains(err.Error(), against+" of access[0]") {
						t.Errorf("%s by %v, outside %s: %v\n%v", method, role, against, err, req)
					}
				}
			}
		}
	}
	for short := range rows {
		t.Errorf("%s has a row and is not served", short)
	}
	t.Logf("%d calls", calls)
}

func isDenied(err error, reason listeners.Reason) bool {
	if status.Code(err) != codes.PermissionDenied {
		return false
	}
	return issueOf(err).GetCode() == string(reason)
}

// What a call is about may be known only once it has begun.
func TestPolicyLate(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	list, stats := &listenerService{m: m}, &statsService{m: m}
	some := func(names ...string) *pb.ApplyListenersRequest {
		r := &pb.ApplyListenersRequest{Manager: "file", Prune: true}
		for _, name := range names {
			r.Listeners = append(r.Listeners, &pb.Listener{Name: name, Spec: specOf("tcp://127.0.0.1:0", nil)})
		}
		return r
	}
	if _, err := list.ApplyListeners(callAs(0), some("web-1", "web-2", "db")); err != nil {
		t.Fatal(err)
	}
	// Both grants are needed, and neither has both.
	ctx := matrixCaller(t, access.Rule{Role: "viewer"}, access.Rule{Role: "operator", Policy: testPolicy()})
	resp, err := list.ApplyListeners(ctx, some("web-1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.GetChanges() {
		want := map[string]pb.ListenerChange_Action{
			"listeners/web-1": pb.ListenerChange_ACTION_UNCHANGED, "listeners/web-2": pb.ListenerChange_ACTION_DELETED, "listeners/db": pb.ListenerChange_ACTION_FAILED,
		}[c.GetName()]
		if c.GetAction() != want || want == pb.ListenerChange_ACTION_FAILED && c.GetError().GetCode() != string(listeners.PolicyDenied) {
			t.Errorf("%v", c)
		}
	}
	if _, err := stats.ResetPeaks(ctx, &pb.ResetPeaksRequest{}); !isDenied(toStatus(err), listeners.PolicyDenied) {
		t.Error(err)
	}
	if _, err := stats.ResetPeaks(ctx, &pb.ResetPeaksRequest{Filter: `name = "listeners/web-1"`}); err != nil {
		t.Error(err)
	}
}

// A right of one grant does not add to the reach of another: raw options are for
// admins, on what their policy has.
func TestPolicyNarrowsTheCaller(t *testing.T) {
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles(), audit: newAuditor(hclog.NewNullLogger(), nil)}
	ctx := matrixCaller(t, access.Rule{Role: "operator"}, access.Rule{Role: "admin", Policy: &access.Policy{Names: []string{"web-"}}})
	raw := map[string]listeners.Value{"so:1:43": {}}
	for name, ok := range map[string]bool{"web-1": true, "db": false} {
		in, err := g.within(ctx, "/sockmgr.v1.TuningService/SetOptions", &pb.SetOptionsRequest{Target: name})
		if err != nil {
			t.Fatal(err)
		}
		if err := mayTuneRaw(in, raw); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
