package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/manager/service"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// A daemon is a control plane and a client of it, for one test.
type daemon struct {
	t           *testing.T
	ctx         context.Context
	manager     *manager.Manager
	conn        *grpc.ClientConn
	addr        string // of the control socket
	listeners   pb.ListenerServiceClient
	connections pb.ConnectionServiceClient
	tuning      pb.TuningServiceClient
	events      pb.EventServiceClient
	stats       pb.StatsServiceClient
	daemon      pb.DaemonServiceClient
	sockets     pb.SocketServiceClient
	health      grpc_health_v1.HealthClient
	ends        chan time.Duration // what ShutdownDaemon asked for
	stop        func()             // ends it; once is enough
}

const instance = "THISINSTANCE"

// testLoops is how many loops the tests have: one, unless SOCKMGR_TEST_LOOPS says
// otherwise.
func testLoops(t *testing.T) int {
	t.Helper()
	text := os.Getenv("SOCKMGR_TEST_LOOPS")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// oneLoop is for tests of what one loop does, or takes.
func oneLoop(t *testing.T) {
	t.Helper()
	t.Setenv("SOCKMGR_TEST_LOOPS", "1")
}

// serve runs a daemon that keeps nothing until the test ends, which then counts
// descriptors and goroutines.
func serve(t *testing.T) *daemon {
	t.Helper()
	return serveState(t, "")
}

func serveState(t *testing.T, stateDir string) *daemon {
	t.Helper()
	noLeaks(t)
	m, err := manager.New(manager.Config{Poller: "epoll", Loops: testLoops(t), StateDir: stateDir, Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	root := hclog.New(&hclog.LoggerOptions{Name: "sockmgr", Level: hclog.Warn, Output: io.Discard, IndependentLevels: true})
	d := &daemon{t: t, manager: m, ends: make(chan time.Duration, 1), addr: filepath.Join(t.TempDir(), "c")}
	server := service.NewServer(service.Config{
		Manager: m, Log: hclog.NewNullLogger(), Loggers: service.NewLoggers(root, "loop", "api"),
		Info:     &pb.DaemonInfo{Version: "test", InstanceId: instance, Pid: int32(os.Getpid())},
		Shutdown: func(drain time.Duration) { d.ends <- drain },
	})
	l, err := net.Listen("unix", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	d.conn = d.dial()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		d.conn.Close()
		server.Stop()
		err := m.Shutdown(context.Background(), 0)
		if errors.Is(err, listeners.DaemonDraining) {
			err = nil // the test has ended it
		}
		if err = errors.Join(<-served, err); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(d.stop)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	d.ctx = ctx
	return d
}

// dial connects, and makes the clients.
func (d *daemon) dial() *grpc.ClientConn {
	conn, err := grpc.NewClient("unix://"+d.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig())
	if err != nil {
		d.t.Fatal(err)
	}
	d.listeners, d.connections = pb.NewListenerServiceClient(conn), pb.NewConnectionServiceClient(conn)
	d.tuning, d.events = pb.NewTuningServiceClient(conn), pb.NewEventServiceClient(conn)
	d.sockets = pb.NewSocketServiceClient(conn)
	d.stats = pb.NewStatsServiceClient(conn)
	d.daemon, d.health = pb.NewDaemonServiceClient(conn), grpc_health_v1.NewHealthClient(conn)
	return conn
}

func noLeaks(t *testing.T) {
	t.Helper()
	if c, err := net.Dial("unix", "@nobody-is-there"); err == nil { // wakes the runtime's own poller
		c.Close()
	}
	fds, goroutines := countFDs(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		var nowFDs, nowGoroutines int
		eventually(t, func() bool {
			nowFDs, nowGoroutines = countFDs(t), runtime.NumGoroutine()
			return nowFDs <= fds && nowGoroutines <= goroutines
		})
		if t.Failed() {
			t.Logf("%d descriptors, %d before; %d goroutines, %d before", nowFDs, fds, nowGoroutines, goroutines)
		}
	})
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// eventually waits for what the kernel or a goroutine does in its own time.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Error("it does not come to be")
			return
		}
	}
}

func echoSpec(uris ...string) *pb.ListenerSpec {
	if len(uris) == 0 {
		uris = []string{"tcp://127.0.0.1:0"}
	}
	return &pb.ListenerSpec{Listen: uris, Handler: &pb.Handler{Kind: &pb.Handler_Echo{Echo: &pb.EchoHandler{}}}}
}

// create makes an echo listener.
func (d *daemon) create(id string, uris ...string) *pb.Listener {
	d.t.Helper()
	return d.createSpec(id, echoSpec(uris...))
}

func (d *daemon) createSpec(id string, spec *pb.ListenerSpec) *pb.Listener {
	d.t.Helper()
	resp, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: id, Listener: &pb.Listener{Spec: spec}})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetListener()
}

func (d *daemon) get(id string) *pb.Listener {
	d.t.Helper()
	resp, err := d.listeners.GetListener(d.ctx, &pb.GetListenerRequest{Name: "listeners/" + id, View: pb.ListenerView_LISTENER_VIEW_FULL})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetListener()
}

// list returns all listeners, in full.
func (d *daemon) list() []*pb.Listener {
	d.t.Helper()
	var all []*pb.Listener
	for token := ""; ; {
		resp, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{
			PageSize: 1000, PageToken: token, View: pb.ListenerView_LISTENER_VIEW_FULL,
		})
		if err != nil {
			d.t.Fatal(err)
		}
		all = append(all, resp.GetListeners()...)
		if token = resp.GetNextPageToken(); token == "" {
			return all
		}
	}
}

// unchanged runs f and fails the test if any listener is not as before.
func (d *daemon) unchanged(f func()) {
	d.t.Helper()
	before := d.list()
	fds := countFDs(d.t)
	f()
	after := d.list()
	same := slices.EqualFunc(before, after, func(a, b *pb.Listener) bool { return proto.Equal(steady(a), steady(b)) })
	if !same {
		d.t.Errorf("it changed:\n%v\n%v", text(before), text(after))
	}
	eventually(d.t, func() bool { return countFDs(d.t) <= fds })
}

// steady takes out of a listener what changes by itself.
func steady(l *pb.Listener) *pb.Listener {
	l = proto.CloneOf(l)
	for _, s := range l.GetStatus().GetSockets() {
		s.Memory = nil
	}
	return l
}

func text(all []*pb.Listener) string {
	return prototext.Format(&pb.ListListenersResponse{Listeners: all})
}

// wantError fails the test unless err has the code, the reason, and violations
// of just these fields. It returns the error's metadata.
func wantError(t *testing.T, err error, code codes.Code, reason string, fields ...string) map[string]string {
	t.Helper()
	st, _ := status.FromError(err)
	if st.Code() != code {
		t.Errorf("code %v, want %v: %v", st.Code(), code, err)
		return nil
	}
	var info *errdetails.ErrorInfo
	var got []string
	for _, detail := range st.Details() {
		switch x := detail.(type) {
		case *errdetails.ErrorInfo:
			info = x
		case *errdetails.BadRequest:
			for _, v := range x.GetFieldViolations() {
				got = append(got, v.GetField())
				if v.GetDescription() == "" || v.GetReason() == "" {
					t.Errorf("violation of %s says nothing: %v", v.GetField(), v)
				}
			}
		}
	}
	if info.GetReason() != reason || info.GetDomain() != "sockmgr" {
		t.Errorf("reason %q of %q, want %q: %v", info.GetReason(), info.GetDomain(), reason, err)
	}
	if !slices.Equal(got, fields) {
		t.Errorf("violations of %q, want %q: %v", got, fields, err)
	}
	return info.GetMetadata()
}

// ping sends a word through an echo listener.
func ping(t *testing.T, a *pb.SocketAddress) net.Conn {
	t.Helper()
	network, address := "tcp", net.JoinHostPort(a.GetIp(), portText(a))
	if a.GetPath() != "" {
		network, address = "unix", a.GetPath()
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	exchange(t, c)
	return c
}

// exchange sends and receives on a connection to an echo.
func exchange(t *testing.T, c net.Conn) {
	t.Helper()
	if err := exchanged(c); err != nil {
		t.Fatal(err)
	}
}

func exchanged(c net.Conn) error {
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != "ping" {
		return fmt.Errorf("sent ping, received %q", got)
	}
	return nil
}
