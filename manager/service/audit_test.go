package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/access"
)

// auditedGuard is a guard whose log is read as JSON.
func auditedGuard(m *manager.Manager) (*guard, func() []map[string]any) {
	var log bytes.Buffer
	l := hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: true})
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles(), m: m, audit: newAuditor(l, m)}
	return g, func() (lines []map[string]any) {
		for line := range strings.Lines(log.String()) {
			one := map[string]any{}
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				one["broken"] = line
			}
			lines = append(lines, one)
		}
		log.Reset()
		return lines
	}
}

// A change is one line: who, what, from what to what, and how it ended. So is a
// refusal, which is an event too. What only reads, or looks, is none.
func TestAudit(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	g, lines := auditedGuard(m)
	list := &listenerService{m: m}
	call := func(ctx context.Context, method string, req any, next grpc.UnaryHandler) {
		_, _ = g.unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: "/sockmgr.v1." + method}, next)
	}
	create := func(ctx context.Context, req any) (any, error) {
		return list.CreateListener(ctx, req.(*pb.CreateListenerRequest))
	}
	const id = "00000000-0000-4000-8000-000000000001"
	ask := &pb.CreateListenerRequest{ListenerId: "web-1", Listener: &pb.Listener{Spec: specOf("tcp://127.0.0.1:0", nil)}, RequestId: id}
	call(callAs(0), "ListenerService/CreateListener", ask, create)
	call(callAs(0), "ListenerService/CreateListener", ask, create) // it is there
	call(callAs(0), "ListenerService/CreateListener", &pb.CreateListenerRequest{ListenerId: "x", ValidateOnly: true}, create)
	call(callAs(0), "ListenerService/ListListeners", &pb.ListListenersRequest{}, func(context.Context, any) (any, error) { return nil, nil })
	call(callAs(0), "ListenerService/StopListener", &pb.StopListenerRequest{Name: "web-1"}, func(context.Context, any) (any, error) { panic("oh") })
	got := lines()
	if len(got) != 3 {
		t.Fatalf("%d lines: %v", len(got), got)
	}
	if l := got[0]; l["caller"] != "uid:0" || l["pid"] != 1.0 || l["what"] != "web-1" || l["request"] != id || l["outcome"] != "done" || l["changes"] == nil {
		t.Error(l)
	}
	if got[1]["outcome"] != "AlreadyExists" || got[2]["outcome"] != "Internal" {
		t.Error(got[1:])
	}

	// Refusals in numbers are few lines, each of one caller.
	evil := "\x1b[2J\n\u202e"
	rules, err := access.NewRules(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: newCaller(rules, access.Identity{Names: []string{"uri:" + evil}})})
	for range 1000 {
		call(stranger, "ListenerService/StopListener", &pb.StopListenerRequest{Name: "db" + evil}, nil)
	}
	call(matrixCaller(t, access.Rule{Role: "operator", Policy: testPolicy()}), "ListenerService/StopListener", &pb.StopListenerRequest{Name: "db"}, nil)
	got = lines()
	if len(got) < deniedBurst+1 || len(got) > deniedBurst+5 {
		t.Errorf("%d lines", len(got))
	}
	for _, l := range got {
		if l["outcome"] != "refused" || l["request"] == nil || l["broken"] != nil {
			t.Error(l)
		}
	}
	if l := got[len(got)-1]; !strings.Contains(l["error"].(string), "names of access[0]") {
		t.Error(l)
	}
	events, _ := m.Events()
	refused := 0
	for _, e := range events {
		if e.Type == "call.refused" {
			refused++
		}
	}
	if refused != len(got) {
		t.Errorf("%d events of %d lines", refused, len(got))
	}
	if events[0].Cause.Actor != "cert:x" {
		t.Error(events[0])
	}
	g.audit.refused(stranger, "/x", nil, errors.New("x"))
	if n := len(g.audit.denied.by); n != 2 {
		t.Errorf("%d callers", n)
	}
}

// Whatever somebody gives as a name, what is noted of it is one line.
func TestAuditIsOneLine(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	var log bytes.Buffer
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles(), m: m, audit: newAuditor(hclog.New(&hclog.LoggerOptions{Output: &log}), m)}
	for _, uid := range []int{0, 4242} { // done, refused
		_, _ = g.unary(callAs(uid), &pb.StopListenerRequest{Name: "x\n2026-01-01T00:00:00Z [INFO] audit: caller=uid:0"},
			&grpc.UnaryServerInfo{FullMethod: "/sockmgr.v1.ListenerService/StopListener"},
			func(context.Context, any) (any, error) { return nil, errors.New("no\nsuch") })
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("two calls are %d lines:\n%s", n, log.String())
	}
}

// Of SendTo and Accept the first for every socket and address is written down, of
// what was done and of what failed; a call that only waited is not.
func TestAuditReaches(t *testing.T) {
	g, lines := auditedGuard(nil)
	call := func(name, to string, err error) {
		_, _ = g.unary(callAs(0), &pb.SendToRequest{Name: name, Address: to}, &grpc.UnaryServerInfo{FullMethod: "/sockmgr.v1.SocketService/SendTo"},
			func(context.Context, any) (any, error) { return &pb.SendToResponse{}, err })
	}
	for range 100 {
		call("sockets/1", "udp://127.0.0.1:1", context.DeadlineExceeded)
		call("sockets/1", "udp://127.0.0.1:1", nil)
		call("sockets/1", "udp://127.0.0.1:2", nil)
		call("sockets/2", "udp://127.0.0.1:1", nil)
		call("sockets/2", "udp://127.0.0.1:1", errors.New("no"))
	}
	if got := lines(); len(got) != 4 || got[0]["outcome"] != "done" || got[3]["outcome"] != "Internal" {
		t.Errorf("%d lines: %v", len(got), got)
	}
	for i := range 200 { // nobody fills the log with them
		call(fmt.Sprintf("sockets/%d", i), "udp://127.0.0.1:3", nil)
	}
	if got := lines(); len(got) < busyBurst-4 || len(got) > busyBurst+5 {
		t.Errorf("%d lines", len(got))
	}
}
