package service

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// Bounds of one input.
const (
	fuzzCalls    = 12
	fuzzPatience = 20 * time.Second
	fuzzMoment   = 5 * time.Millisecond // for calls that may wait, and streams
)

// fuzzMethod is one that is served, with requests that mean something.
type fuzzMethod struct {
	name   string // /service/method
	kind   protoreflect.MethodDescriptor
	bases  []proto.Message
	waits  bool // for something else than the daemon
	stream bool

	collection string // of what it is about: listeners/
}

// fuzzed is a daemon in this process, and its client.
type fuzzed struct {
	m       *manager.Manager
	conn    *grpc.ClientConn
	methods []fuzzMethod
	words   vocabulary
}

// FuzzRPC: every method that is served, found by its descriptor, with requests
// that are valid, nearly valid and neither, in a row, on a daemon that has
// listeners, connections and sockets. None panics, hangs or is the daemon's own
// fault; a call that fails changes no listener and makes no socket; what is
// there can be applied again and changes nothing; nothing is left behind.
func FuzzRPC(f *testing.F) {
	d := newFuzzed(f)
	for b, begun := 0, map[int]bool{}; len(begun) < len(d.methods); b++ {
		if i := d.choose(b); !begun[i] {
			begun[i] = true
			for base := range len(d.methods[i].bases) + 1 {
				f.Add([]byte{0, byte(b), byte(b >> 8), byte(base)})
			}
		}
	}
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		d.run(t, newScript(data))
	})
}

// choose is the method of a number. One that comes to the others takes only its
// share: what was found goes on to mean the same.
func (d *fuzzed) choose(b int) (best int) {
	var most uint32
	for i, m := range d.methods {
		h := fnv.New32a()
		_, _ = fmt.Fprintf(h, "%s %d %s", m.name, b, m.name)
		if x := h.Sum32() * 2654435761; x > most {
			best, most = i, x
		}
	}
	return best
}

func newFuzzed(f *testing.F) *fuzzed {
	f.Helper()
	// Files that are there or are not; @ is unlike any other test's.
	dir, at := f.TempDir(), fmt.Sprintf("unix://@fuzz-%d", os.Getpid())
	cat, err := listeners.ParseProgram("/bin/cat")
	if err != nil {
		f.Fatal(err)
	}
	m, err := manager.New(manager.Config{Poller: "epoll", Programs: listeners.Programs{cat}, Log: hclog.NewNullLogger()})
	if err != nil {
		f.Fatal(err)
	}
	server := NewServer(Config{
		Manager: m, Log: hclog.NewNullLogger(), Loggers: NewLoggers(hclog.New(&hclog.LoggerOptions{Output: io.Discard, IndependentLevels: true}), "loop", "api"),
		Info: &pb.DaemonInfo{InstanceId: "THISINSTANCE", Pid: int32(os.Getpid())}, Shutdown: func(time.Duration) {},
	})
	control := filepath.Join(dir, "control")
	l, err := net.Listen("unix", control)
	if err != nil {
		f.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+control, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := errors.Join(m.Shutdown(context.Background(), 0), <-served); err != nil {
			f.Error(err)
		}
	})
	d := &fuzzed{m: m, conn: conn}
	d.words.addresses = []string{
		"tcp://127.0.0.1:0", "tcp://[::1]:0", "udp://127.0.0.1:0", "udp6://[::1]:0", "tcp4://127.0.0.2:0", "unix://" + dir + "/a", "unixgram://" + dir + "/b",
		"unixpacket://" + dir + "/c", at, "tcp://localhost:1", "udp://127.0.0.1:9", "tcp://127.0.0.1:1", "unix://" + dir + "/no/such", dir + "/key", "/bin/cat", "/dev/null",
	}
	d.words.fixed = append(slices.Clone(d.words.addresses), "web-1", "db", "datagrams", "listeners/web-2", "listeners/db", "listeners/path", "new", "listeners/new", "THISINSTANCE", "*",
		"spec", "spec.options", "labels", "spec.listen", "spec.handler", "spec.options.backlog", "so:socket:SO_KEEPALIVE", "so:1:8", "so:6:1", "1s", "4KiB", "0600", "on",
		"00000000-0000-4000-8000-000000000001", "name = \"listeners/web-1\"", "status.state = running", "name desc", "10.0.0.0/8", "::1", "localhost", "1.3", "http/1.1", "owner", "loop", "debug",
		"file:a")
	d.methods = fuzzMethods(f, server)
	_ = d.setUp(f, true).Close()
	d.tearDown(f)
	return d
}

// fuzzMethods finds what is served. The rows of the policy matrix have requests.
func fuzzMethods(tb testing.TB, server *grpc.Server) (all []fuzzMethod) {
	tb.Helper()
	rows := policyRows("", "", "sockets/1")
	for service, info := range server.GetServiceInfo() {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			tb.Fatal(err)
		}
		methods := found.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			kind := methods.Get(i)
			options, _ := kind.Options().(*descriptorpb.MethodOptions)
			m := fuzzMethod{
				name: "/" + service + "/" + string(kind.Name()), kind: kind, stream: kind.IsStreamingClient() || kind.IsStreamingServer(),
				waits: !strings.HasPrefix(service, "sockmgr.v1.") || service == "sockmgr.v1.SocketService" || options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS,
			}
			_, last, _ := strings.Cut(service, "v1.")
			m.collection = strings.ToLower(strings.TrimSuffix(last, "Service")) + "s/"
			row := rows[strings.TrimPrefix(m.name, "/sockmgr.v1.")]
			m.bases = slices.Clone(row.inside)
			for _, key := range []string{"names", "addresses", "upstreams", "handlers", "programs"} {
				m.bases = append(m.bases, row.outside[key]...)
			}
			all = append(all, m)
		}
		_ = info
	}
	slices.SortFunc(all, func(a, b fuzzMethod) int { return strings.Compare(a.name, b.name) })
	return all
}

// setUp makes what every input begins with.
func (d *fuzzed) setUp(tb testing.TB, first bool) net.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
	defer cancel()
	list, sockets := pb.NewListenerServiceClient(d.conn), pb.NewSocketServiceClient(d.conn)
	d.words.heard = map[protoreflect.Name][]string{}
	for name, l := range map[string]*pb.ListenerSpec{
		"web-2": specOf("tcp://127.0.0.1:0", nil), "datagrams": specOf("udp://127.0.0.1:0", nil), "path": specOf(d.words.addresses[5], nil),
		"db": specOf("tcp://[::1]:0", &pb.Handler{Kind: &pb.Handler_Remote{Remote: &pb.RemoteHandler{}}}),
	} {
		resp, err := list.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: name, Listener: &pb.Listener{Spec: l, Labels: map[string]string{"tier": "edge"}}})
		if err != nil {
			tb.Fatal(err)
		}
		d.words.hear(resp.ProtoReflect())
	}
	bound := d.words.heard["uri"]
	for i, network := range []pb.Network{pb.Network_NETWORK_TCP, pb.Network_NETWORK_TCP, pb.Network_NETWORK_UDP, pb.Network_NETWORK_UNIX} {
		made, err := sockets.CreateSocket(ctx, &pb.CreateSocketRequest{Network: network})
		if err != nil {
			tb.Fatal(err)
		}
		d.words.hear(made.ProtoReflect())
		name := made.GetSocket().GetName()
		switch i {
		case 0: // connected
			at := slices.IndexFunc(bound, func(uri string) bool { return strings.HasPrefix(uri, "tcp://127") })
			_, err = sockets.Connect(ctx, &pb.ConnectRequest{Name: name, Address: bound[at]})
		case 1, 2:
			_, err = sockets.Bind(ctx, &pb.BindRequest{Name: name, Address: []string{"", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"}[i]})
		}
		if i == 1 && err == nil {
			_, err = sockets.Listen(ctx, &pb.ListenRequest{Name: name})
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if first { // the names of all options
		options, err := pb.NewTuningServiceClient(d.conn).ListOptions(ctx, &pb.ListOptionsRequest{})
		if err != nil {
			tb.Fatal(err)
		}
		d.words.options = []string{"so:socket:SO_KEEPALIVE", "so:1:8", "so:6:1"}
		for _, o := range options.GetOptions() {
			d.words.options = append(d.words.options, o.GetName())
		}
	}
	c, err := net.Dial("unix", strings.TrimPrefix(d.words.addresses[5], "unix://"))
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	_, _ = c.Read(make([]byte, 1))
	conns, err := pb.NewConnectionServiceClient(d.conn).ListConnections(ctx, &pb.ListConnectionsRequest{})
	if err != nil {
		tb.Fatal(err)
	}
	d.words.hear(conns.ProtoReflect())
	return c
}

// tearDown ends all that an input has made, and waits until it has.
func (d *fuzzed) tearDown(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
	defer cancel()
	sockets := pb.NewSocketServiceClient(d.conn)
	for len(d.sockets(tb)) > 0 {
		for _, name := range d.sockets(tb) {
			if _, err := sockets.CloseSocket(ctx, &pb.CloseSocketRequest{Name: name}); err != nil && status.Code(err) != codes.NotFound {
				tb.Fatal(err)
			}
		}
	}
	for d.m.Len() > 0 {
		infos, err := d.m.List(ctx, "", 1000, false)
		if err != nil {
			tb.Fatal(err)
		}
		for _, info := range infos {
			if _, err := d.m.Delete(ctx, info.Name, "", 0, false); err != nil && ctx.Err() != nil {
				tb.Fatalf("%s does not go: %v", info.Name, err)
			}
		}
	}
}

// run is one input.
func (d *fuzzed) run(t *testing.T, s *script) {
	fds, routines := fdsOpen(t), runtime.NumGoroutine()
	client := d.setUp(t, false)
	for range fuzzCalls {
		if s.ended() {
			break
		}
		m := d.methods[d.choose(s.n(1<<16))]
		requests := []proto.Message{d.request(m, s)}
		for m.kind.IsStreamingClient() && s.n(3) == 2 && len(requests) < 8 {
			requests = append(requests, d.request(m, s))
		}
		m.waits = m.waits || hasGrace(requests[0])
		d.try(t, m, requests)
	}
	d.applyAgain(t)
	_ = client.Close()
	d.tearDown(t)
	for end := time.Now().Add(fuzzPatience); fdsOpen(t) > fds || runtime.NumGoroutine() > routines; runtime.Gosched() {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d descriptors, %d before; %d goroutines, %d before\n%s", fdsOpen(t), fds, runtime.NumGoroutine(), routines, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// hasGrace reports whether a request has clients finish first, which may take longer than this test.
func hasGrace(req proto.Message) bool {
	m := req.ProtoReflect()
	grace := m.Descriptor().Fields().ByName("grace")
	return grace != nil && m.Has(grace)
}

func fdsOpen(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(entries)
}

// request is one of a method, as the script has it.
func (d *fuzzed) request(m fuzzMethod, s *script) proto.Message {
	req := dynamicpb.NewMessage(m.kind.Input())
	if at := s.n(len(m.bases) + 1); at < len(m.bases) {
		data, err := proto.Marshal(m.bases[at])
		if err == nil {
			err = proto.Unmarshal(data, req)
		}
		if err != nil {
			panic(err) // of our own tables
		}
	}
	if s.n(8) > 1 {
		d.words.aim(req, m.collection, s)
	}
	if how := s.n(4); how > 1 {
		for range 1 + (how-2)*s.n(6) {
			d.words.mutate(req, s, 0)
		}
	}
	if s.n(16) == 15 { // as bytes
		data, err := proto.Marshal(req)
		broken := dynamicpb.NewMessage(m.kind.Input())
		for range s.n(4) {
			if len(data) > 0 {
				data[s.n(len(data))] ^= byte(1 + s.n(255))
			}
		}
		if err == nil && proto.Unmarshal(data, broken) == nil {
			req = broken
		}
	}
	d.words.tame(req)
	return req
}

// try makes one call, and judges it.
func (d *fuzzed) try(t *testing.T, m fuzzMethod, requests []proto.Message) {
	t.Helper()
	before, sockets := d.export(t), d.sockets(t)
	timeout := fuzzPatience
	if m.waits {
		timeout = fuzzMoment
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var err error
	if m.stream {
		err = d.stream(ctx, m, requests)
	} else {
		resp := dynamicpb.NewMessage(m.kind.Output())
		if err = d.conn.Invoke(ctx, m.name, requests[0], resp); err == nil {
			d.words.hear(resp)
		}
	}
	say := func() string { return m.name + "\n" + cut(prototext.Format(requests[0])) }
	switch status.Code(err) {
	case codes.OK, codes.Canceled:
		return
	case codes.DeadlineExceeded:
		if !m.waits {
			t.Errorf("%v: it hangs: %s", err, say())
		}
		return
	case codes.Internal, codes.Unknown, codes.Unavailable:
		t.Errorf("%v: %s", err, say())
	default:
	}
	if proto.Size(status.Convert(err).Proto()) > 8<<10 {
		t.Errorf("%d bytes of error: %s", proto.Size(status.Convert(err).Proto()), say())
	}
	compareExports(t, before, d.export(t), func() string { return fmt.Sprintf("%v: %s", err, say()) })
	if now := d.sockets(t); len(now) > len(sockets) {
		t.Errorf("%v, and there is a socket more, %v: %s", err, now, say())
	}
}

func cut(text string) string { return text[:min(len(text), 4000)] }

// stream sends all and takes what comes in a moment.
func (d *fuzzed) stream(ctx context.Context, m fuzzMethod, requests []proto.Message) error {
	if m.waits {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, fuzzMoment)
		defer cancel()
	}
	desc := &grpc.StreamDesc{ServerStreams: m.kind.IsStreamingServer(), ClientStreams: m.kind.IsStreamingClient()}
	stream, err := d.conn.NewStream(ctx, desc, m.name)
	if err != nil {
		return err
	}
	for _, r := range requests {
		if err := stream.SendMsg(r); err != nil {
			break // Recv tells why
		}
	}
	_ = stream.CloseSend()
	for {
		resp := dynamicpb.NewMessage(m.kind.Output())
		if err := stream.RecvMsg(resp); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		d.words.hear(resp)
	}
}

// export is all listeners, as they are wished for.
func (d *fuzzed) export(tb testing.TB) map[string]*pb.Listener {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
	defer cancel()
	all := map[string]*pb.Listener{}
	for token := ""; ; {
		resp, err := pb.NewListenerServiceClient(d.conn).ListListeners(ctx, &pb.ListListenersRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			tb.Fatal(err)
		}
		for _, l := range resp.GetListeners() {
			all[l.GetName()] = l
		}
		if token = resp.GetNextPageToken(); token == "" {
			return all
		}
	}
}

// compareExports fails unless all is as it was. What drained may have ended
// meanwhile, by itself.
func compareExports(t *testing.T, before, after map[string]*pb.Listener, say func() string) {
	t.Helper()
	for name, was := range before {
		is := after[name]
		if passes(was) {
			delete(after, name)
			continue
		}
		a, b := proto.CloneOf(was), proto.CloneOf(is)
		if is != nil {
			a.Status, b.Status = nil, nil
		}
		if !proto.Equal(a, b) {
			t.Errorf("%s changed by %s\nfrom %v\nto %v", name, say(), was, is)
		}
		delete(after, name)
	}
	for name := range after {
		t.Errorf("%s came to be by %s", name, say())
	}
}

// passes tells what changes, or goes, by itself.
func passes(l *pb.Listener) bool {
	return l.GetStatus().GetState() == pb.ListenerStatus_STATE_DRAINING || strings.HasPrefix(l.GetStatus().GetMessage(), "being deleted")
}

// applyAgain wishes for what is there.
func (d *fuzzed) applyAgain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
	defer cancel()
	r := &pb.ApplyListenersRequest{ValidateOnly: true}
	there := d.export(t)
	for _, l := range there {
		if !passes(l) {
			r.Listeners = append(r.Listeners, &pb.Listener{Name: l.GetName(), Labels: l.GetLabels(), Annotations: l.GetAnnotations(), Spec: l.GetSpec()})
		}
	}
	resp, err := pb.NewListenerServiceClient(d.conn).ApplyListeners(ctx, r)
	if err != nil {
		t.Errorf("what is there cannot be applied: %v", err)
	}
	for _, c := range resp.GetChanges() {
		if c.GetAction() != pb.ListenerChange_ACTION_UNCHANGED {
			t.Errorf("what is there, applied again: %v\n%v", c, there[c.GetName()])
		}
	}
}

// sockets are those that clients have made or accepted.
func (d *fuzzed) sockets(tb testing.TB) (names []string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
	defer cancel()
	resp, err := pb.NewSocketServiceClient(d.conn).ListSockets(ctx, &pb.ListSocketsRequest{PageSize: 1000})
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range resp.GetSockets() {
		if s.GetOwner() != "" {
			names = append(names, s.GetName())
		}
	}
	return names
}
