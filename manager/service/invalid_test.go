package service_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// number, word and flag are values of options.
func number(n float64) *structpb.Value { return structpb.NewNumberValue(n) }
func word(s string) *structpb.Value    { return structpb.NewStringValue(s) }
func flag(b bool) *structpb.Value      { return structpb.NewBoolValue(b) }

// badSpecs are what no listener can be, with the fields at fault.
var badSpecs = map[string]struct {
	spec   *pb.ListenerSpec
	labels map[string]string
	reason string // SPEC_INVALID when empty
	fields []string
}{
	"nothing":       {spec: nil, fields: []string{"spec.listen", "spec.handler"}},
	"no handler":    {spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}}, fields: []string{"spec.handler"}},
	"empty handler": {spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{}}, fields: []string{"spec.handler"}},
	"bad addresses": {
		spec:   echoSpec("127.0.0.1:80", "tcp://127.0.0.1:0", "tcp://localhost:1", "ftp://[::1]:1", "tcp://1.2.3.4:99999", "unix://x", "tcp4://[::1]:1", ""),
		fields: []string{"spec.listen[0]", "spec.listen[2]", "spec.listen[3]", "spec.listen[4]", "spec.listen[5]", "spec.listen[6]", "spec.listen[7]"},
	},
	"an address twice":      {spec: echoSpec("tcp://127.0.0.1:7", "tcp://127.0.0.1:7"), fields: []string{"spec.listen[1]"}},
	"too many addresses":    {spec: echoSpec(slices.Repeat([]string{"tcp://127.0.0.1:0"}, 257)...), fields: []string{"spec.listen"}},
	"http for datagrams":    {spec: withHandler(&pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{}}}, "udp://127.0.0.1:0"), fields: []string{"spec.listen[0]"}},
	"http status":           {spec: withHandler(&pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Status: math.MaxUint32}}}, "tcp://127.0.0.1:0"), fields: []string{"spec.handler.http.status"}},
	"unknown desired state": {spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: echoSpec().GetHandler(), DesiredState: 77}, fields: []string{"spec.desired_state"}},
	"unknown option":        {spec: withOptions(map[string]*structpb.Value{"backlg": number(5)}), reason: "OPTION_UNKNOWN", fields: []string{"spec.options.backlg"}},
	"out of range":          {spec: withOptions(map[string]*structpb.Value{"backlog": number(0), "tcp.keepalive_count": number(128)}), fields: []string{"spec.options.backlog", "spec.options.tcp.keepalive_count"}},
	"not of the network":    {spec: withOptions(map[string]*structpb.Value{"unix.mode": word("0600")}), fields: []string{"spec.options.unix.mode"}},
	"not whole":             {spec: withOptions(map[string]*structpb.Value{"backlog": number(1.5)}), fields: []string{"spec.options.backlog"}},
	"not finite":            {spec: withOptions(map[string]*structpb.Value{"backlog": number(math.NaN())}), fields: []string{"spec.options.backlog"}},
	"a list":                {spec: withOptions(map[string]*structpb.Value{"backlog": structpb.NewListValue(&structpb.ListValue{})}), fields: []string{"spec.options.backlog"}},
	"of another type":       {spec: withOptions(map[string]*structpb.Value{"tcp.no_delay": number(1), "idle_timeout": flag(true)}), fields: []string{"spec.options.idle_timeout", "spec.options.tcp.no_delay"}},
	"control characters":    {spec: echoSpec(), labels: map[string]string{"a": "b\x1b[31m", "c\nd": "e"}, fields: []string{"labels.a", "labels"}},
	"empty label":           {spec: echoSpec(), labels: map[string]string{"": "x"}, fields: []string{"labels"}},
	"long label":            {spec: echoSpec(), labels: map[string]string{"a": strings.Repeat("x", 5000)}, fields: []string{"labels.a"}},
	"path too long":         {spec: echoSpec("unix:///" + strings.Repeat("x", 107)), fields: []string{"spec.listen[0]"}},
	"access": {
		spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0", "unix://@a"}, Handler: echoSpec().GetHandler(), Access: &pb.AccessPolicy{
			Allow: []string{"::/0", "10.0.0.0/8", "::1", "10.0.0.1/8"}, Deny: []string{"localhost"}, AllowUids: make([]uint32, 1001),
		}},
		fields: []string{"spec.access.allow[3]", "spec.access.deny[0]", "spec.access.allow_uids"},
	},
	"access of nobody": {
		spec:   &pb.ListenerSpec{Listen: []string{"unixgram://@a"}, Handler: echoSpec().GetHandler(), Access: &pb.AccessPolicy{Deny: []string{"::1"}, AllowUids: []uint32{1}}},
		fields: []string{"spec.access.deny", "spec.access.allow_uids"},
	},
	"path with newline": {spec: echoSpec("unix:///tmp/a\nb"), fields: []string{"spec.listen[0]"}},
}

func withHandler(h *pb.Handler, uris ...string) *pb.ListenerSpec {
	return &pb.ListenerSpec{Listen: uris, Handler: h}
}

func withOptions(options map[string]*structpb.Value) *pb.ListenerSpec {
	s := echoSpec()
	s.Options = options
	return s
}

// What no listener can be is refused when one is made and when one is changed,
// checked only or not, with all the fields at fault; nothing changes.
func TestBadSpecs(t *testing.T) {
	d := serve(t)
	d.create("there")
	d.unchanged(func() {
		for _, name := range slices.Sorted(maps.Keys(badSpecs)) {
			bad := badSpecs[name]
			t.Run(name, func(t *testing.T) {
				reason := bad.reason
				if reason == "" {
					reason = "SPEC_INVALID"
				}
				for _, checkOnly := range []bool{false, true} {
					_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{
						ListenerId: "bad", Listener: &pb.Listener{Spec: bad.spec, Labels: bad.labels}, ValidateOnly: checkOnly,
					})
					wantError(t, err, codes.InvalidArgument, reason, bad.fields...)
					_, err = d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
						Listener:   &pb.Listener{Name: "there", Spec: bad.spec, Labels: bad.labels},
						UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*"}}, AllowRebind: true, ValidateOnly: checkOnly,
					})
					wantError(t, err, codes.InvalidArgument, reason, bad.fields...)
				}
			})
		}
	})
}

// badCalls are requests that are refused whatever is there, by method.
func badCalls(d *daemon) map[string]struct {
	err    error
	code   codes.Code
	reason string
	fields []string
} {
	type row = struct {
		err    error
		code   codes.Code
		reason string
		fields []string
	}
	ctx := d.ctx
	of := func(_ any, err error) error { return err }
	notFound := func(err error) row { return row{err, codes.NotFound, "LISTENER_NOT_FOUND", nil} }
	noConn := func(err error) row { return row{err, codes.NotFound, "CONNECTION_NOT_FOUND", nil} }
	spec := func(err error, fields ...string) row {
		return row{err, codes.InvalidArgument, "SPEC_INVALID", fields}
	}
	bad := func(err error, reason string, fields ...string) row {
		return row{err, codes.InvalidArgument, reason, fields}
	}
	backlog := map[string]*structpb.Value{"backlog": number(5)}
	long := durationpb.New(3601e9)
	return map[string]row{
		"get":              notFound(of(d.listeners.GetListener(ctx, &pb.GetListenerRequest{Name: "nobody"}))),
		"get nothing":      notFound(of(d.listeners.GetListener(ctx, &pb.GetListenerRequest{}))),
		"start":            notFound(of(d.listeners.StartListener(ctx, &pb.StartListenerRequest{Name: "listeners/nobody"}))),
		"stop":             notFound(of(d.listeners.StopListener(ctx, &pb.StopListenerRequest{Name: "nobody"}))),
		"stop negative":    spec(of(d.listeners.StopListener(ctx, &pb.StopListenerRequest{Name: "there", DrainTimeout: durationpb.New(-1)})), "drain_timeout"),
		"stop too long":    spec(of(d.listeners.StopListener(ctx, &pb.StopListenerRequest{Name: "there", DrainTimeout: long})), "drain_timeout"),
		"stop no duration": spec(of(d.listeners.StopListener(ctx, &pb.StopListenerRequest{Name: "there", DrainTimeout: &durationpb.Duration{Nanos: -5, Seconds: 5}})), "drain_timeout"),
		"delete":           notFound(of(d.listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: "nobody"}))),
		"delete checked":   notFound(of(d.listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: "nobody", ValidateOnly: true}))),
		"delete too long":  spec(of(d.listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: "there", DrainTimeout: long})), "drain_timeout"),
		"update":           notFound(of(d.listeners.UpdateListener(ctx, &pb.UpdateListenerRequest{Listener: &pb.Listener{Name: "nobody"}}))),
		"update nothing":   spec(of(d.listeners.UpdateListener(ctx, &pb.UpdateListenerRequest{})), "listener.name"),
		"update the name": spec(of(d.listeners.UpdateListener(ctx, &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "there"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels", "name", "status.state"}},
		})), "update_mask", "update_mask"),
		"list size":     spec(of(d.listeners.ListListeners(ctx, &pb.ListListenersRequest{PageSize: -1})), "page_size"),
		"list filter":   bad(of(d.listeners.ListListeners(ctx, &pb.ListListenersRequest{Filter: "colour = red"})), "FILTER_INVALID"),
		"list token":    bad(of(d.listeners.ListListeners(ctx, &pb.ListListenersRequest{PageToken: "!"})), "PAGE_TOKEN_INVALID"),
		"watch filter":  bad(first(d.listeners.WatchListeners(ctx, &pb.WatchListenersRequest{Filter: "= ="})), "FILTER_INVALID"),
		"watch token":   {first(d.listeners.WatchListeners(ctx, &pb.WatchListenersRequest{ResumeToken: "OTHER.1"})), codes.OutOfRange, "REVISION_COMPACTED", nil},
		"watch garbage": {first(d.listeners.WatchListeners(ctx, &pb.WatchListenersRequest{ResumeToken: "?"})), codes.OutOfRange, "REVISION_COMPACTED", nil},
		"watch future":  {first(d.listeners.WatchListeners(ctx, &pb.WatchListenersRequest{ResumeToken: instance + ".zzz"})), codes.OutOfRange, "REVISION_COMPACTED", nil},

		"conn":         noConn(of(d.connections.GetConnection(ctx, &pb.GetConnectionRequest{Name: "connections/ffffffff"}))),
		"conn peer":    noConn(of(d.connections.GetConnection(ctx, &pb.GetConnectionRequest{Name: "127.0.0.1:1"}))),
		"conn garbage": noConn(of(d.connections.GetConnection(ctx, &pb.GetConnectionRequest{Name: "connections/../x"}))),
		"conn nothing": noConn(of(d.connections.GetConnection(ctx, &pb.GetConnectionRequest{}))),
		"conns size":   spec(of(d.connections.ListConnections(ctx, &pb.ListConnectionsRequest{PageSize: -1})), "page_size"),
		"conns filter": bad(of(d.connections.ListConnections(ctx, &pb.ListConnectionsRequest{Filter: "remote = x"})), "FILTER_INVALID"),
		"conns token":  bad(of(d.connections.ListConnections(ctx, &pb.ListConnectionsRequest{PageToken: "!"})), "PAGE_TOKEN_INVALID"),
		"close":        spec(first(d.connections.CloseConnections(ctx, &pb.CloseConnectionsRequest{})), "filter"),
		"close filter": bad(first(d.connections.CloseConnections(ctx, &pb.CloseConnectionsRequest{Filter: "x"})), "FILTER_INVALID"),

		"options":      bad(of(d.tuning.ListOptions(ctx, &pb.ListOptionsRequest{Names: []string{"backlog", "backlg"}})), "OPTION_UNKNOWN", "names[1]"),
		"get options":  bad(of(d.tuning.GetOptions(ctx, &pb.GetOptionsRequest{Target: "there", Names: []string{"nodelay"}})), "OPTION_UNKNOWN", "names[0]"),
		"get nobody's": notFound(of(d.tuning.GetOptions(ctx, &pb.GetOptionsRequest{Target: "listeners/nobody"}))),
		"get closed":   noConn(of(d.tuning.GetOptions(ctx, &pb.GetOptionsRequest{Target: "connections/ffffffff"}))),
		"set nobody's": notFound(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: "nobody", Options: backlog}))),
		"set closed":   noConn(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: "connections/ffffffff", Options: map[string]*structpb.Value{"tcp.no_delay": flag(true)}}))),
		"set nothing":  spec(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: "there"})), "options"),
		"set scope":    spec(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: "there", Options: backlog, Scope: 9})), "scope"),
		"set unknown": bad(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: "there", Options: map[string]*structpb.Value{
			"backlog": number(99), "backlg": number(5),
		}})), "OPTION_UNKNOWN", "options.backlg"),
		"set range": spec(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: "there", Options: map[string]*structpb.Value{
			"traffic_class": number(256), "max_connections": number(-1), "idle_timeout": word("-1s"), "tcp.keepalive": flag(true),
		}})), "options.idle_timeout", "options.max_connections", "options.traffic_class"),
		"set a list": spec(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{Target: "there", Options: map[string]*structpb.Value{
			"backlog": structpb.NewStructValue(&structpb.Struct{}),
		}})), "options.backlog"),
		"set the listener's": spec(of(d.tuning.SetOptions(ctx, &pb.SetOptionsRequest{
			Target: "there", Options: backlog, Scope: pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS,
		})), "options.backlog"),

		"log level":   spec(of(d.daemon.SetLogLevel(ctx, &pb.SetLogLevelRequest{})), "level"),
		"no level":    spec(of(d.daemon.SetLogLevel(ctx, &pb.SetLogLevelRequest{Level: 99})), "level"),
		"logger":      spec(of(d.daemon.SetLogLevel(ctx, &pb.SetLogLevelRequest{Logger: "x", Level: pb.LogLevel_LOG_LEVEL_INFO})), "logger"),
		"shutdown":    spec(of(d.daemon.ShutdownDaemon(ctx, &pb.ShutdownDaemonRequest{})), "instance_id"),
		"wrong one":   spec(of(d.daemon.ShutdownDaemon(ctx, &pb.ShutdownDaemonRequest{InstanceId: "OTHER"})), "instance_id"),
		"drain":       spec(of(d.daemon.ShutdownDaemon(ctx, &pb.ShutdownDaemonRequest{InstanceId: instance, DrainTimeout: long})), "drain_timeout"),
		"events size": spec(of(d.events.ListEvents(ctx, &pb.ListEventsRequest{PageSize: -1})), "page_size"),
		"events":      bad(of(d.events.ListEvents(ctx, &pb.ListEventsRequest{Filter: "colour = red"})), "FILTER_INVALID"),
		"event token": bad(of(d.events.ListEvents(ctx, &pb.ListEventsRequest{PageToken: "!"})), "PAGE_TOKEN_INVALID"),
		"event watch": {first(d.events.WatchEvents(ctx, &pb.WatchEventsRequest{ResumeToken: "OTHER.1"})), codes.OutOfRange, "REVISION_COMPACTED", nil},

		"request id": spec(of(d.listeners.StartListener(ctx, &pb.StartListenerRequest{Name: "there", RequestId: "7"})), "request_id"),
		"etag":       {of(d.listeners.StartListener(ctx, &pb.StartListenerRequest{Name: "there", Etag: "x"})), codes.Aborted, "ETAG_MISMATCH", nil},
		"apply":      spec(of(d.listeners.ApplyListeners(ctx, &pb.ApplyListenersRequest{Listeners: []*pb.Listener{{Name: "a/b"}, {Name: "x"}, {Name: "x"}}})), "listeners[0].name", "listeners[2].name"),
		"prune":      spec(of(d.listeners.ApplyListeners(ctx, &pb.ApplyListenersRequest{Prune: true})), "manager"),
	}
}

// first is the error of the first message of a stream.
func first[T any](stream grpc.ServerStreamingClient[T], err error) error {
	if err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestBadCalls(t *testing.T) {
	d := serve(t)
	d.create("there")
	d.unchanged(func() {
		for name, row := range badCalls(d) {
			t.Run(name, func(t *testing.T) { wantError(t, row.err, row.code, row.reason, row.fields...) })
		}
	})
}

// Addresses that cannot be had: the error names who has them, and none of the
// listener's other addresses stays bound.
func TestAddressNotToBeHad(t *testing.T) {
	d := serve(t)
	uri := d.create("there").GetStatus().GetBound()[0].GetUri()
	path := "unix://" + t.TempDir() + "/s"
	d.unchanged(func() {
		_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "other", Listener: &pb.Listener{Spec: echoSpec(path, "tcp://127.0.0.1:0", uri)}})
		meta := wantError(t, err, codes.FailedPrecondition, "ADDRESS_IN_USE")
		if meta["errno"] != "EADDRINUSE" || meta["holder_listener"] != "there" || meta["address"] != uri || meta["holder_pid"] == "" || meta["fix"] == "" {
			t.Errorf("metadata: %v", meta)
		}
		_, err = d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "there", Spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0", "tcp://192.0.2.1:0"}}}, AllowRebind: true,
		})
		wantError(t, err, codes.FailedPrecondition, "ADDRESS_NOT_AVAILABLE")
		_, err = d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "there", Spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"}}},
		})
		wantError(t, err, codes.FailedPrecondition, "OPTION_NEEDS_REBIND")
		_, err = d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "there", Listener: &pb.Listener{Spec: echoSpec()}})
		wantError(t, err, codes.AlreadyExists, "LISTENER_ALREADY_EXISTS")
	})
	if n := len(d.list()); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

// What is wrong with a very long or a very wrong request fits in an answer.
func TestLongFaults(t *testing.T) {
	d := serve(t)
	d.create("there")
	long := strings.Repeat("x\xc3\xa9", 50_000)
	d.unchanged(func() {
		_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "x", Listener: &pb.Listener{Spec: echoSpec(long)}})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "spec.listen[0]")
		_, err = d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: long, Listener: &pb.Listener{Spec: echoSpec()}})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "listener_id")
		_, err = d.listeners.GetListener(d.ctx, &pb.GetListenerRequest{Name: long})
		wantError(t, err, codes.NotFound, "LISTENER_NOT_FOUND")
		_, err = d.connections.GetConnection(d.ctx, &pb.GetConnectionRequest{Name: long})
		wantError(t, err, codes.NotFound, "CONNECTION_NOT_FOUND")
		_, err = d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "there", Etag: long})
		wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
		for _, filter := range []string{"name = " + strings.Repeat("(", 5000), strings.Repeat("a.", 5000) + "a = 1", "name = \"" + strings.Repeat("x", 5000)} {
			_, err = d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{Filter: filter})
			wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
		}
		// 256 faults: the first are told, the others counted.
		_, err = d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "x", Listener: &pb.Listener{Spec: echoSpec(slices.Repeat([]string{"nowhere"}, 256)...)}})
		st, _ := status.FromError(err)
		if len(st.Details()) != 3 || st.Code() != codes.InvalidArgument {
			t.Fatal(err)
		}
		faults := st.Details()[1].(*errdetails.BadRequest).GetFieldViolations()
		more := fmt.Sprintf("(and %d more)", 256-len(faults))
		if last := faults[len(faults)-1].GetDescription(); len(faults) < 5 || !strings.HasSuffix(last, more) {
			t.Errorf("%d faults, the last is %q, not %q", len(faults), last, more)
		}
	})
}

// A field that the daemon does not know is an error, at any depth, in any
// request: to ignore it is to do something else than was asked.
func TestUnknownField(t *testing.T) {
	d := serve(t)
	d.create("there")
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 7777, protowire.VarintType), 1)
	add := func(m proto.Message) { m.ProtoReflect().SetUnknown(unknown) }
	d.unchanged(func() {
		spec := echoSpec()
		add(spec)
		_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "x", Listener: &pb.Listener{Spec: spec}})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "listener.spec.7777 of sockmgr.v1.ListenerSpec")
		closing := &pb.CloseConnectionsRequest{All: true}
		add(closing)
		wantError(t, first(d.connections.CloseConnections(d.ctx, closing)), codes.InvalidArgument, "SPEC_INVALID", "7777 of sockmgr.v1.CloseConnectionsRequest")
		value := number(9)
		add(value)
		_, err = d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "there", Options: map[string]*structpb.Value{"backlog": value}})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "options.backlog.7777 of google.protobuf.Value")
	})
}
