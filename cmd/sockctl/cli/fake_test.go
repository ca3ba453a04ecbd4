package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// now is the time of every run.
var now = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

// fake is a daemon that keeps what a test puts in and writes down what it is
// asked.
type fake struct {
	pb.UnimplementedListenerServiceServer
	pb.UnimplementedConnectionServiceServer
	pb.UnimplementedTuningServiceServer
	pb.UnimplementedDaemonServiceServer
	pb.UnimplementedStatsServiceServer
	pb.UnimplementedSocketServiceServer

	path   string
	server *grpc.Server
	ended  chan struct{} // closed when the server is down

	mu         sync.Mutex
	listeners  []*pb.Listener
	conns      []*pb.Connection
	catalogue  []*pb.OptionSpec
	inForce    map[string]map[string]*structpb.Value // by target
	results    []*pb.OptionResult
	issues     []*pb.Issue
	levels     map[string]pb.LogLevel
	info       *pb.DaemonInfo
	errs       map[string]error // by method
	asked      []string         // method and request
	changed    chan struct{}    // closed at every change
	synced     func(f *fake)    // runs once a watch has sent what is there
	progress   *pb.CloseConnectionsResponse
	pageSize   int
	shutdown   func() // in place of ending
	snapshots  []*pb.Snapshot
	connEvents []*pb.WatchConnectionsResponse
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		path: filepath.Join(t.TempDir(), "s"), ended: make(chan struct{}), changed: make(chan struct{}),
		inForce: map[string]map[string]*structpb.Value{}, errs: map[string]error{},
	}
	l, err := net.Listen("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.server = grpc.NewServer(
		grpc.MaxRecvMsgSize(1<<20),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := f.ask(info.FullMethod, req); err != nil {
				return nil, err
			}
			return h(ctx, req)
		}))
	pb.RegisterListenerServiceServer(f.server, f)
	pb.RegisterConnectionServiceServer(f.server, f)
	pb.RegisterTuningServiceServer(f.server, f)
	pb.RegisterDaemonServiceServer(f.server, f)
	pb.RegisterStatsServiceServer(f.server, f)
	pb.RegisterSocketServiceServer(f.server, f)
	go func() {
		defer close(f.ended)
		if err := f.server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // a test may be that quick
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		f.server.Stop()
		<-f.ended
	})
	return f
}

// ask writes a request down and returns the error a test wants for it.
func (f *fake) ask(method string, req any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b bytes.Buffer
	o := messageTree(req.(proto.Message).ProtoReflect(), true)
	if o == nil {
		o = object{}
	}
	writeJSON(&b, o, "")
	f.asked = append(f.asked, path.Base(method)+" "+b.String())
	return f.errs[path.Base(method)]
}

// GetSocket knows those of listeners.
func (f *fake) GetSocket(_ context.Context, r *pb.GetSocketRequest) (*pb.GetSocketResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.listeners {
		for _, s := range l.GetStatus().GetSockets() {
			if s.GetName() == r.GetName() {
				return &pb.GetSocketResponse{Socket: s}, nil
			}
		}
	}
	return nil, refused(codes.NotFound, "SOCKET_NOT_FOUND", "there is no socket "+socketID(r.GetName()), nil)
}

// change runs do and wakes the watchers. The caller must not hold mu.
func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

func notFound(name string) error {
	return refused(codes.NotFound, "LISTENER_NOT_FOUND", fmt.Sprintf("no listener is called %s", listenerID(name)), nil)
}

func refused(c codes.Code, reason, message string, metadata map[string]string, more ...protoadapt.MessageV1) error {
	st, err := status.New(c, message).WithDetails(append([]protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: reason, Domain: "sockmgr", Metadata: metadata,
	}}, more...)...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// find returns a listener. The caller holds mu.
func (f *fake) find(name string) (*pb.Listener, error) {
	for _, l := range f.listeners {
		if l.GetName() == name {
			return l, nil
		}
	}
	return nil, notFound(name)
}

// onSync has do run once the next watch has sent what is there.
func (f *fake) onSync(do func(f *fake)) { f.change(func() { f.synced = do }) }

func (f *fake) stopped(name string) {
	f.change(func() {
		if l, err := f.find(name); err == nil {
			l.Status.State = pb.ListenerStatus_STATE_STOPPED
		}
	})
}

func (f *fake) remove(name string) {
	f.change(func() {
		f.listeners = slices.DeleteFunc(f.listeners, func(l *pb.Listener) bool { return l.GetName() == name })
	})
}

// listener makes one that runs, for tests to start from.
func listener(id string) *pb.Listener {
	return &pb.Listener{
		Name:       "listeners/" + id,
		Uid:        "uid-" + id,
		Generation: 1,
		CreateTime: ago(5 * time.Minute),
		Spec: &pb.ListenerSpec{
			DesiredState: pb.ListenerSpec_DESIRED_STATE_RUNNING,
			Listen:       []string{"tcp://127.0.0.1:8080"},
			Handler:      &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}},
		},
		Status: &pb.ListenerStatus{
			State:            pb.ListenerStatus_STATE_RUNNING,
			Bound:            []*pb.SocketAddress{{Uri: "tcp://127.0.0.1:8080", Network: pb.Network_NETWORK_TCP, Ip: "127.0.0.1", Port: 8080}},
			AcceptQueueLimit: 4096,
		},
	}
}

func (f *fake) CreateListener(_ context.Context, req *pb.CreateListenerRequest) (*pb.CreateListenerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := "listeners/" + req.GetListenerId()
	if _, err := f.find(name); err == nil {
		return nil, refused(codes.AlreadyExists, "LISTENER_ALREADY_EXISTS", req.GetListenerId()+" exists", nil)
	}
	l := listener(req.GetListenerId())
	l.Spec, l.Labels = req.GetListener().GetSpec(), req.GetListener().GetLabels()
	f.listeners = append(f.listeners, l)
	return &pb.CreateListenerResponse{Listener: l, Issues: f.issues}, nil
}

func (f *fake) GetListener(_ context.Context, req *pb.GetListenerRequest) (*pb.GetListenerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.find(req.GetName())
	if err != nil {
		return nil, err
	}
	return &pb.GetListenerResponse{Listener: proto.CloneOf(l)}, nil
}

func (f *fake) ListListeners(_ context.Context, req *pb.ListListenersRequest) (*pb.ListListenersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := 0
	if req.GetPageToken() != "" {
		fmt.Sscan(req.GetPageToken(), &from)
	}
	resp := &pb.ListListenersResponse{}
	for i, l := range f.listeners[from:] {
		if i == f.pageSize && i > 0 {
			resp.NextPageToken = fmt.Sprint(from + i)
			break
		}
		resp.Listeners = append(resp.Listeners, proto.CloneOf(l))
	}
	return resp, nil
}

// UpdateListener only ever says what would be.
func (f *fake) UpdateListener(_ context.Context, req *pb.UpdateListenerRequest) (*pb.UpdateListenerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	present, err := f.find(req.GetListener().GetName())
	if err != nil {
		return nil, err
	}
	after := proto.CloneOf(present)
	from := proto.CloneOf(req.GetListener())
	for _, p := range req.GetUpdateMask().GetPaths() {
		switch {
		case p == "spec.listen":
			after.Spec.Listen = from.GetSpec().GetListen()
		case p == "spec.handler":
			after.Spec.Handler = from.GetSpec().GetHandler()
		case strings.HasPrefix(p, "spec.options."):
			name := strings.TrimPrefix(p, "spec.options.")
			if after.Spec.Options == nil {
				after.Spec.Options = map[string]*structpb.Value{}
			}
			after.Spec.Options[name] = from.GetSpec().GetOptions()[name]
		case strings.HasPrefix(p, "labels."):
			name := strings.TrimPrefix(p, "labels.")
			if after.Labels == nil {
				after.Labels = map[string]string{}
			}
			after.Labels[name] = from.GetLabels()[name]
		}
	}
	if !proto.Equal(after.GetSpec(), present.GetSpec()) {
		after.Generation++
	}
	return &pb.UpdateListenerResponse{Listener: after}, nil
}

func (f *fake) StartListener(_ context.Context, req *pb.StartListenerRequest) (*pb.StartListenerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.find(req.GetName())
	return &pb.StartListenerResponse{Listener: l}, err
}

// StopListener and DeleteListener leave the listener draining; what comes
// next is for synced.
func (f *fake) StopListener(_ context.Context, req *pb.StopListenerRequest) (*pb.StopListenerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.find(req.GetName())
	if err != nil {
		return nil, err
	}
	l.Spec.DesiredState = pb.ListenerSpec_DESIRED_STATE_STOPPED
	l.Status.State = pb.ListenerStatus_STATE_DRAINING
	return &pb.StopListenerResponse{Listener: proto.CloneOf(l)}, nil
}

func (f *fake) DeleteListener(_ context.Context, req *pb.DeleteListenerRequest) (*pb.DeleteListenerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.find(req.GetName())
	if err != nil {
		if req.GetAllowMissing() {
			return &pb.DeleteListenerResponse{}, nil
		}
		return nil, err
	}
	l.Status.State = pb.ListenerStatus_STATE_DRAINING
	return &pb.DeleteListenerResponse{Listener: proto.CloneOf(l)}, nil
}

func (f *fake) WatchListeners(req *pb.WatchListenersRequest, s grpc.ServerStreamingServer[pb.WatchListenersResponse]) error {
	if err := f.ask("WatchListeners", req); err != nil {
		return err
	}
	sent := map[string]*pb.Listener{}
	f.mu.Lock()
	synced := f.synced
	f.synced = nil // is for one stream: the one before may not have ended yet
	f.mu.Unlock()
	for first := true; ; first = false {
		f.mu.Lock()
		changed := f.changed
		var events []*pb.WatchListenersResponse
		for _, l := range f.listeners {
			was := sent[l.GetName()]
			kind := pb.WatchListenersResponse_TYPE_STATUS
			if was == nil {
				kind = pb.WatchListenersResponse_TYPE_ADDED
			}
			if !proto.Equal(was, l) {
				events = append(events, &pb.WatchListenersResponse{Type: kind, Listener: proto.CloneOf(l)})
				sent[l.GetName()] = proto.CloneOf(l)
			}
		}
		for name, l := range sent {
			if _, err := f.find(name); err != nil {
				events = append(events, &pb.WatchListenersResponse{Type: pb.WatchListenersResponse_TYPE_DELETED, Listener: l})
				delete(sent, name)
			}
		}
		if first {
			events = append(events, &pb.WatchListenersResponse{Type: pb.WatchListenersResponse_TYPE_SYNCED})
		}
		f.mu.Unlock()
		for _, e := range events {
			if err := s.Send(e); err != nil {
				return err
			}
		}
		if first && synced != nil {
			synced(f)
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (f *fake) GetConnection(_ context.Context, req *pb.GetConnectionRequest) (*pb.GetConnectionResponse, error) {
	for _, c := range f.conns {
		if c.GetName() == req.GetName() || strings.HasSuffix(c.GetRemote().GetUri(), "//"+req.GetName()) {
			return &pb.GetConnectionResponse{Connection: c}, nil
		}
	}
	return nil, refused(codes.NotFound, "CONNECTION_NOT_FOUND", "no connection "+connectionID(req.GetName()), nil)
}

// ListConnections returns TCP facts and queues to who asks for them only.
func (f *fake) ListConnections(_ context.Context, req *pb.ListConnectionsRequest) (*pb.ListConnectionsResponse, error) {
	resp := &pb.ListConnectionsResponse{}
	for _, c := range f.conns {
		if c = proto.CloneOf(c); req.GetView() == pb.ConnectionView_CONNECTION_VIEW_BASIC {
			c.Memory = nil
			if !strings.Contains(req.GetOrderBy(), "tcp_info") {
				c.TcpInfo = nil
			}
			if !strings.Contains(req.GetOrderBy(), "queue") {
				c.Queue = nil
			}
		}
		resp.Connections = append(resp.Connections, c)
	}
	return resp, nil
}

func (f *fake) WatchConnections(req *pb.WatchConnectionsRequest, s grpc.ServerStreamingServer[pb.WatchConnectionsResponse]) error {
	if err := f.ask("WatchConnections", req); err != nil {
		return err
	}
	for _, e := range f.connEvents {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) CloseConnections(req *pb.CloseConnectionsRequest, s grpc.ServerStreamingServer[pb.CloseConnectionsResponse]) error {
	if err := f.ask("CloseConnections", req); err != nil {
		return err
	}
	last := f.progress
	if last == nil {
		last = &pb.CloseConnectionsResponse{Done: true}
		for _, c := range f.conns {
			if strings.Contains(req.GetFilter(), quote(c.GetName())) || strings.Contains(req.GetFilter(), quote(c.GetListener())) {
				last.Matched++
				last.Closed++
			}
		}
	}
	if err := s.Send(&pb.CloseConnectionsResponse{Matched: last.GetMatched()}); err != nil {
		return err
	}
	return s.Send(last)
}

func (f *fake) ListOptions(context.Context, *pb.ListOptionsRequest) (*pb.ListOptionsResponse, error) {
	return &pb.ListOptionsResponse{Options: f.catalogue}, nil
}

func (f *fake) GetOptions(_ context.Context, req *pb.GetOptionsRequest) (*pb.GetOptionsResponse, error) {
	values, ok := f.inForce[req.GetTarget()]
	if !ok {
		return nil, notFound(req.GetTarget())
	}
	return &pb.GetOptionsResponse{Options: values}, nil
}

func (f *fake) SetOptions(_ context.Context, req *pb.SetOptionsRequest) (*pb.SetOptionsResponse, error) {
	if _, ok := f.inForce[req.GetTarget()]; !ok {
		return nil, notFound(req.GetTarget())
	}
	resp := &pb.SetOptionsResponse{Results: f.results}
	if d := req.GetRevertAfter(); d != nil {
		resp.ChangeId, resp.RevertTime = "1a2b3c4d", timestamppb.New(now.Add(d.AsDuration()))
	}
	return resp, nil
}

func (f *fake) ConfirmOptions(_ context.Context, req *pb.ConfirmOptionsRequest) (*pb.ConfirmOptionsResponse, error) {
	if req.GetChangeId() != "1a2b3c4d" {
		return nil, notFound("changes/" + req.GetChangeId())
	}
	return &pb.ConfirmOptionsResponse{}, nil
}

func (f *fake) GetDaemonInfo(context.Context, *pb.GetDaemonInfoRequest) (*pb.GetDaemonInfoResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &pb.GetDaemonInfoResponse{Info: f.info}, nil
}

func (f *fake) GetLogLevels(context.Context, *pb.GetLogLevelsRequest) (*pb.GetLogLevelsResponse, error) {
	return &pb.GetLogLevelsResponse{Levels: f.levels}, nil
}

func (f *fake) SetLogLevel(_ context.Context, req *pb.SetLogLevelRequest) (*pb.SetLogLevelResponse, error) {
	for logger := range f.levels {
		if req.GetLogger() == "" || req.GetLogger() == logger {
			f.levels[logger] = req.GetLevel()
		}
	}
	return &pb.SetLogLevelResponse{Levels: f.levels}, nil
}

// ShutdownDaemon takes the server down once the answer is out.
func (f *fake) ShutdownDaemon(context.Context, *pb.ShutdownDaemonRequest) (*pb.ShutdownDaemonResponse, error) {
	if f.shutdown != nil {
		f.shutdown()
	} else {
		go f.server.GracefulStop()
	}
	return &pb.ShutdownDaemonResponse{}, nil
}

// world is what a run sees beside the daemon.
type world struct {
	ctx      context.Context
	env      map[string]string
	stdin    string
	terminal bool
}

// result is what came of a run.
type result struct {
	exit           int
	stdout, stderr string
}

func (w world) run(t *testing.T, args ...string) result {
	t.Helper()
	if w.ctx == nil {
		w.ctx = t.Context()
	}
	var stdout, stderr bytes.Buffer
	exit := Run(w.ctx, Env{
		Stdin:      strings.NewReader(w.stdin),
		Stdout:     &stdout,
		Stderr:     &stderr,
		Getenv:     func(k string) string { return w.env[k] },
		Now:        func() time.Time { return now },
		UID:        1000,
		IsTerminal: w.terminal,
	}, args)
	return result{exit, stdout.String(), stderr.String()}
}

func (f *fake) world() world {
	return world{env: map[string]string{"SOCKMGR_ADDR": "unix://" + f.path}}
}

func (f *fake) run(t *testing.T, args ...string) result {
	t.Helper()
	return f.world().run(t, args...)
}

// requests returns what was asked since the last call.
func (f *fake) requests() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := strings.Join(f.asked, "\n")
	f.asked = nil
	return all
}

// want compares a run with the exit code and literal output it should have.
func want(t *testing.T, got result, exit int, stdout, stderr string) {
	t.Helper()
	if got.exit != exit {
		t.Errorf("exit %d, want %d", got.exit, exit)
	}
	same(t, "stdout", got.stdout, stdout)
	same(t, "stderr", got.stderr, stderr)
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("%s is\n%s\nwant\n%s", what, got, want)
	}
}
