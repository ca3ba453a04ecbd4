package service

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// callAs is the context of a call by a user.
func callAs(uid int) context.Context {
	c := newCaller(ownOnly(), access.Identity{IsUser: true, UID: uint32(uid), PID: 1})
	c.overUnix = true
	return peer.NewContext(context.Background(), &peer.Peer{AuthInfo: c})
}

// served are the methods of the server, as clients can call them.
func served(t *testing.T) []string {
	t.Helper()
	server := NewServer(Config{Log: hclog.NewNullLogger(), Info: &pb.DaemonInfo{}})
	defer server.Stop()
	var methods []string
	for name, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+name+"/"+m.Name)
		}
	}
	slices.Sort(methods)
	return methods
}

// Every method that is served has a role, and each is refused to a caller
// without it: unary or stream, before the request is looked at.
func TestEveryMethodEveryCaller(t *testing.T) {
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles(), audit: newAuditor(hclog.NewNullLogger(), nil)}
	stranger := 1 + max(os.Geteuid(), 4242)
	nobody := map[string]context.Context{
		"another user":    callAs(stranger),
		"no credentials":  context.Background(),
		"another network": peer.NewContext(context.Background(), &peer.Peer{}),
	}
	for _, method := range served(t) {
		role := g.roles[method]
		if role == pb.Role_ROLE_UNSPECIFIED {
			t.Errorf("%s has no role: nobody can call it", method)
		}
		for _, uid := range []int{0, os.Geteuid()} {
			if err := g.check(callAs(uid), method); err != nil {
				t.Errorf("%s by %d: %v", method, uid, err)
			}
		}
		for who, ctx := range nobody {
			reached := false
			_, unary := g.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
				reached = true
				return nil, nil
			})
			stream := g.stream(nil, stubStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error {
				reached = true
				return nil
			})
			for _, err := range []error{unary, stream} {
				if reached || status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), roleName(role)) {
					t.Errorf("%s by %s: %v", method, who, err)
				}
			}
		}
	}
	// Roles that no served method has would be mistakes in the table.
	for _, method := range slices.Sorted(maps.Keys(g.roles)) {
		if !slices.Contains(served(t), method) {
			t.Errorf("%s has a role and is not served", method)
		}
	}
	// A method without a role is refused to everyone.
	if err := g.check(callAs(0), "/sockmgr.v1.ListenerService/Unheard"); status.Code(toStatus(err)) != codes.PermissionDenied {
		t.Error(err)
	}
}

type stubStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stubStream) Context() context.Context { return s.ctx }

// What only reads asks for no more than a viewer, what changes something for
// more.
func TestRolesFit(t *testing.T) {
	for method, role := range methodRoles() {
		_, name, _ := strings.Cut(method[1:], "/")
		reads := slices.ContainsFunc([]string{"Get", "List", "Watch", "Who", "Check", "Diagnose"}, func(p string) bool { return strings.HasPrefix(name, p) && name != "Listen" })
		if reads != (role == pb.Role_ROLE_VIEWER) {
			t.Errorf("%s asks for %s", method, roleName(role))
		}
	}
}

// Reflection is for admins, though it changes nothing.
func TestReflectionRole(t *testing.T) {
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles()}
	const method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	for role := range pb.Role_ROLE_ADMIN + 1 {
		for _, overUnix := range []bool{true, false} {
			c := caller{who: access.Identity{IsUser: true, UID: 4242}, granted: role, overUnix: overUnix}
			err := g.check(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: c}), method)
			if may := role == pb.Role_ROLE_ADMIN && overUnix; may != (err == nil) || !may && status.Code(toStatus(err)) != codes.PermissionDenied {
				t.Errorf("%v, over Unix %v: %v", role, overUnix, err)
			}
		}
	}
}

// A panic ends one call, with an error that says whose fault it is.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	g := &guard{log: hclog.New(&hclog.LoggerOptions{Output: &log}), roles: methodRoles(), audit: newAuditor(hclog.NewNullLogger(), nil)}
	const method = "/sockmgr.v1.ListenerService/GetListener"
	_, unary := g.unary(callAs(0), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { panic("oh") })
	stream := g.stream(nil, stubStream{ctx: callAs(0)}, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error { panic("oh") })
	for _, err := range []error{unary, stream} {
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "daemon's own") {
			t.Error(err)
		}
	}
	if !strings.Contains(log.String(), "guard_test.go") {
		t.Errorf("no stack in the log: %s", log.String())
	}

	// Who waits for the answer of a call that panics is told too.
	once := newOnce()
	began, wait := make(chan struct{}), make(chan struct{})
	request := &pb.StartListenerRequest{RequestId: "00000000-0000-4000-8000-000000000001"}
	call := func(next grpc.UnaryHandler) (any, error) {
		return g.unary(callAs(0), request, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, req any) (any, error) {
			return once.unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, next)
		})
	}
	firstErr := make(chan error)
	go func() {
		_, err := call(func(context.Context, any) (any, error) {
			close(began)
			<-wait
			panic("oh")
		})
		firstErr <- err
	}()
	<-began
	secondResp := make(chan any)
	go func() {
		resp, err := call(func(context.Context, any) (any, error) { return "done", nil }) // it is tried again
		secondResp <- errors.Join(err, okIf(resp == "done"))
	}()
	close(wait)
	if err := <-firstErr; status.Code(err) != codes.Internal {
		t.Error(err)
	}
	if err := <-secondResp; err != nil {
		t.Errorf("the second: %v", err)
	}
}

func okIf(ok bool) error {
	if ok {
		return nil
	}
	return errors.New("it is given no answer")
}

// Errors that carry a status, or none of ours, come out as what they are.
func TestToStatus(t *testing.T) {
	for want, err := range map[codes.Code]error{
		codes.OK:               nil,
		codes.NotFound:         status.Error(codes.NotFound, "x"),
		codes.Canceled:         context.Canceled,
		codes.DeadlineExceeded: context.DeadlineExceeded,
		codes.Internal:         errors.New("x"),
		codes.InvalidArgument:  &manager.Invalid{Violations: manyFaults(1000)},
	} {
		if got := status.Code(toStatus(err)); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
