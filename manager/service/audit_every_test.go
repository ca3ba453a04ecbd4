package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

// lineLog is a log in JSON that a test reads while it is written.
type lineLog struct{ lines chan map[string]any }

func (l lineLog) Write(p []byte) (int, error) {
	one := map[string]any{}
	if err := json.Unmarshal(bytes.TrimSpace(p), &one); err != nil || bytes.Count(p, []byte("\n")) != 1 {
		one["broken"] = string(p)
	}
	if one["@message"] == "audit" {
		l.lines <- one
	}
	return len(p), nil
}

// movers change nothing that is written down, or only what a socket of the
// caller's does with its bytes.
var movers = map[string]bool{
	"SocketService/Send": true, "SocketService/Recv": true, "SocketService/RecvFrom": true, "SocketService/Poll": true,
	"SocketService/Stream": true, "SocketService/SetTimeout": true, "SocketService/Shutdown": true,
}

// Every method that is not said to have no side effects makes one line and one
// event, which say who, what, from what to what, how it ended, and under which
// id; so does each that is refused. The methods are those of the descriptors.
func TestEveryChangeIsAudited(t *testing.T) {
	m, err := manager.New(manager.Config{Poller: "epoll", Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	log := lineLog{make(chan map[string]any, 1024)}
	root := hclog.New(&hclog.LoggerOptions{Name: "sockmgr", Level: hclog.Info, Output: log, JSONFormat: true, IndependentLevels: true})
	server := NewServer(Config{
		Manager: m, Log: root.Named("api"), Loggers: NewLoggers(root, "loop", "api"), Info: &pb.DaemonInfo{InstanceId: "X"},
		Shutdown: func(time.Duration) {},
		Upgrade: func(_ context.Context, _ Upgrade, tell func(UpgradePhase, string, int)) error {
			tell(UpgradeDone, "", 4242)
			return nil
		},
	})
	path := filepath.Join(t.TempDir(), "c")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := m.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
		<-served
	})
	h := &auditHarness{t: t, ctx: t.Context(), conn: conn, m: m, log: log}
	h.prepare()
	requests := h.changes()
	protoregistry.GlobalFiles.RangeFilesByPackage("sockmgr.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				h.tryMethod(string(service.Name()), service.Methods().Get(j), requests)
			}
		}
		return true
	})
	for left := range requests {
		t.Errorf("%s has a request here and is not among the methods", left)
	}
}

type auditHarness struct {
	t    *testing.T
	ctx  context.Context
	conn *grpc.ClientConn
	m    *manager.Manager
	log  lineLog
	done map[string]bool

	web, tried    string
	udp, tcp, out string // sockets
}

// prepare makes what the changes are about, and forgets what it was told.
func (h *auditHarness) prepare() {
	list, tuning, sockets := pb.NewListenerServiceClient(h.conn), pb.NewTuningServiceClient(h.conn), pb.NewSocketServiceClient(h.conn)
	for _, name := range []string{"web", "gone", "idle", "off"} {
		if _, err := list.CreateListener(h.ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: &pb.Listener{Spec: specOf("tcp://127.0.0.1:0", nil)}}); err != nil {
			h.t.Fatal(err)
		}
	}
	remote := specOf("tcp://127.0.0.1:0", &pb.Handler{Kind: &pb.Handler_Remote{Remote: &pb.RemoteHandler{}}})
	made, err := list.CreateListener(h.ctx, &pb.CreateListenerRequest{ListenerId: "remote", Listener: &pb.Listener{Spec: remote}})
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(made.GetListener().GetStatus().GetBound()[0].GetUri(), "tcp://"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	h.web = strings.TrimPrefix(h.boundOf("web"), "tcp://")
	if c, err = net.Dial("tcp", h.web); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	_, _ = io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		h.t.Fatal(err)
	}
	for _, stopped := range []string{"idle"} {
		if _, err := list.StopListener(h.ctx, &pb.StopListenerRequest{Name: stopped}); err != nil {
			h.t.Fatal(err)
		}
	}
	if _, err := list.PauseListener(h.ctx, &pb.PauseListenerRequest{Name: "off"}); err != nil {
		h.t.Fatal(err)
	}
	tried, err := tuning.SetOptions(h.ctx, &pb.SetOptionsRequest{
		Target: "web", Options: map[string]*structpb.Value{"backlog": structpb.NewNumberValue(7)}, RevertAfter: durationpb.New(time.Hour),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.tried = tried.GetChangeId()
	for _, to := range []*string{&h.tcp, &h.out, &h.udp} {
		network := pb.Network_NETWORK_TCP
		if to == &h.udp {
			network = pb.Network_NETWORK_UDP
		}
		made, err := sockets.CreateSocket(h.ctx, &pb.CreateSocketRequest{Network: network})
		if err != nil {
			h.t.Fatal(err)
		}
		*to = made.GetSocket().GetName()
	}
	for len(h.log.lines) > 0 {
		<-h.log.lines
	}
}

func (h *auditHarness) boundOf(name string) string {
	got, err := pb.NewListenerServiceClient(h.conn).GetListener(h.ctx, &pb.GetListenerRequest{Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	return got.GetListener().GetStatus().GetBound()[0].GetUri()
}

// changes are requests that change something, with a word of what the audit
// must say of each.
func (h *auditHarness) changes() map[string]auditCase {
	one := func(req proto.Message, change string) auditCase { return auditCase{req, change} }
	spec := specOf("tcp://127.0.0.1:0", nil)
	return map[string]auditCase{
		"ListenerService/CreateListener": one(&pb.CreateListenerRequest{ListenerId: "new", Listener: &pb.Listener{Spec: spec}}, "spec.listen"),
		"ListenerService/UpdateListener": one(&pb.UpdateListenerRequest{Listener: &pb.Listener{Name: "web", Labels: map[string]string{"a": "b"}, Spec: spec}}, "labels"),
		"ListenerService/DeleteListener": one(&pb.DeleteListenerRequest{Name: "gone"}, "spec.listen"),
		"ListenerService/ApplyListeners": one(&pb.ApplyListenersRequest{Manager: "x", Listeners: []*pb.Listener{{Name: "applied", Spec: spec}}}, "applied: as before -> created"),
		"ListenerService/StartListener":  one(&pb.StartListenerRequest{Name: "idle"}, "state: stopped -> running"),
		"ListenerService/StopListener":   one(&pb.StopListenerRequest{Name: "web"}, "state: paused -> stopped"),
		"ListenerService/PauseListener":  one(&pb.PauseListenerRequest{Name: "web"}, "state: running -> paused"),
		"ListenerService/ResumeListener": one(&pb.ResumeListenerRequest{Name: "off"}, "state: paused -> running"),
		"ListenerService/DrainListener":  one(&pb.DrainListenerRequest{Name: "remote"}, "state: running -> "),

		"ConnectionService/CloseConnections": one(&pb.CloseConnectionsRequest{All: true}, "open -> closed"),

		"TuningService/SetOptions":     one(&pb.SetOptionsRequest{Target: "web", Options: map[string]*structpb.Value{"max_connections": structpb.NewNumberValue(9)}}, "max_connections: 0 -> 9"),
		"TuningService/ConfirmOptions": one(&pb.ConfirmOptionsRequest{ChangeId: h.tried}, "backlog=7: tried -> kept"),

		"DaemonService/SetLogLevel":    one(&pb.SetLogLevelRequest{Level: pb.LogLevel_LOG_LEVEL_ERROR}, "sockmgr.api: info -> error"),
		"DaemonService/ShutdownDaemon": one(&pb.ShutdownDaemonRequest{InstanceId: "X"}, "daemon: runs -> ends"),
		"DaemonService/Upgrade":        one(&pb.UpgradeRequest{ValidateOnly: true}, "-> 4242"),
		"StatsService/ResetPeaks":      one(&pb.ResetPeaksRequest{}, "peaks of the loops"),

		"SocketService/CreateSocket": one(&pb.CreateSocketRequest{Network: pb.Network_NETWORK_TCP}, "none -> sockets/"),
		"SocketService/Bind":         one(&pb.BindRequest{Name: h.tcp, Address: "tcp://127.0.0.1:0"}, "unbound -> tcp://127.0.0.1:"),
		"SocketService/Listen":       one(&pb.ListenRequest{Name: h.tcp}, "backlog: does not listen -> "),
		"SocketService/Connect":      one(&pb.ConnectRequest{Name: h.out, Address: "tcp://" + h.web}, "none -> tcp://127.0.0.1:"),
		"SocketService/SendTo":       one(&pb.SendToRequest{Name: h.udp, Address: "udp://127.0.0.1:9", Payload: []byte("x")}, "sends to it"),
		"SocketService/Accept":       one(&pb.AcceptRequest{Name: "listeners/remote"}, "from tcp://127.0.0.1:"),
		"SocketService/CloseSocket":  one(&pb.CloseSocketRequest{Name: h.udp}, "open -> closed"),
	}
}

type auditCase struct {
	req    proto.Message
	change string
}

// order in which methods must be tried, because one needs what another does.
var auditAfter = map[string][]string{
	"SocketService/Listen": {"SocketService/Bind"}, "SocketService/Connect": {}, "SocketService/CloseSocket": {"SocketService/SendTo"},
	"ListenerService/StopListener":       {"ConnectionService/CloseConnections", "TuningService/SetOptions", "TuningService/ConfirmOptions", "SocketService/Connect", "ListenerService/UpdateListener", "ListenerService/PauseListener"},
	"ListenerService/PauseListener":      {"SocketService/Connect"},
	"ListenerService/DrainListener":      {"SocketService/Accept"},
	"ConnectionService/CloseConnections": {},
}

func (h *auditHarness) tryMethod(service string, method protoreflect.MethodDescriptor, requests map[string]auditCase) {
	t, short := h.t, service+"/"+string(method.Name())
	for _, before := range auditAfter[short] {
		name := protoreflect.FullName("sockmgr.v1." + strings.Replace(before, "/", ".", 1))
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Fatal(err)
		}
		other, _, _ := strings.Cut(before, "/")
		h.tryMethod(other, d.(protoreflect.MethodDescriptor), requests)
	}
	if h.done[short] {
		return
	}
	if h.done == nil {
		h.done = map[string]bool{}
	}
	h.done[short] = true
	full := "/sockmgr.v1." + short
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	reads := options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
	c, changes := requests[short]
	delete(requests, short)
	if reads == (changes || movers[short]) {
		t.Errorf("%s: has no side effects: %v; is tried here: %v", short, reads, changes)
	}
	if changes {
		_, seq := h.m.Events()
		if err := h.call(full, method, c.req); err != nil {
			t.Errorf("%s: %v", short, err)
			return
		}
		h.expect(short, seq, "done", c.change)
	}
	h.refused(full, method)
}

// call calls a method as a client would, whatever its kind.
func (h *auditHarness) call(full string, method protoreflect.MethodDescriptor, req proto.Message) error {
	ctx, cancel := context.WithTimeout(h.ctx, 20*time.Second)
	defer cancel()
	resp := dynamicpb.NewMessage(method.Output())
	if !method.IsStreamingServer() {
		return h.conn.Invoke(ctx, full, req, resp)
	}
	stream, err := h.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for err == nil {
		err = stream.RecvMsg(dynamicpb.NewMessage(method.Output()))
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// refused calls a method as somebody who may do nothing.
func (h *auditHarness) refused(full string, method protoreflect.MethodDescriptor) {
	var log bytes.Buffer
	l := hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: true})
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles(), m: h.m, audit: newAuditor(l, h.m)}
	_, seq := h.m.Events()
	var err error
	if method.IsStreamingServer() {
		err = g.stream(nil, stubStream{ctx: callAs(os.Geteuid() + 4242)}, &grpc.StreamServerInfo{FullMethod: full}, nil)
	} else {
		_, err = g.unary(callAs(os.Geteuid()+4242), dynamicpb.NewMessage(method.Input()), &grpc.UnaryServerInfo{FullMethod: full}, nil)
	}
	id := ""
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RequestInfo); ok {
			id = info.GetRequestId()
		}
	}
	one := map[string]any{}
	if json.Unmarshal(log.Bytes(), &one) != nil || one["outcome"] != "refused" || one["pid"] == nil || one["uid"] == nil || one["request"] == nil || one["request"] != id || one["method"] != full {
		h.t.Errorf("%s refused: %s, id %q", full, log.String(), id)
	}
	h.events(full, seq, "call.refused", one)
}

// expect checks the one line and the one event of a call.
func (h *auditHarness) expect(short string, seq uint64, outcome, change string) {
	t := h.t
	var line map[string]any
	ctx, cancel := context.WithTimeout(h.ctx, 20*time.Second)
	defer cancel()
	select {
	case line = <-h.log.lines:
	case <-ctx.Done():
		t.Errorf("%s: no line", short)
		return
	}
	if n := len(h.log.lines); n > 0 {
		t.Errorf("%s: %d lines more: %v", short, n, <-h.log.lines)
	}
	for _, key := range []string{"caller", "uid", "pid", "method", "what", "request", "changes"} {
		if v, ok := line[key]; !ok || v == "" {
			t.Errorf("%s: the line has no %s: %v", short, key, line)
		}
	}
	if line["outcome"] != outcome || !strings.Contains(fmt.Sprint(line["changes"]), change) {
		t.Errorf("%s: no %q in %v", short, change, line)
	}
	h.events("/sockmgr.v1."+short, seq, "call."+outcome, line)
}

// events checks that one event says what a line says.
func (h *auditHarness) events(full string, seq uint64, kind string, line map[string]any) {
	events, _ := h.m.Events()
	found := 0
	for _, e := range events {
		if e.Seq <= seq || e.Attributes["method"] != full {
			continue
		}
		found++
		if e.Type != kind || e.Cause.RequestID != line["request"] {
			h.t.Errorf("%s: %+v", full, e)
		}
		for _, key := range []string{"caller", "uid", "pid", "what", "outcome", "request"} {
			if e.Attributes[key] != fmt.Sprint(line[key]) {
				h.t.Errorf("%s: %s is %q in the event, %v in the line", full, key, e.Attributes[key], line[key])
			}
		}
		if line["changes"] != nil && e.Attributes["changes"] == "" {
			h.t.Errorf("%s: the event has no changes: %+v", full, e)
		}
	}
	if found != 1 {
		h.t.Errorf("%s: %d events", full, found)
	}
}
