package service_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// catalogue is all options that this kernel knows.
func (d *daemon) catalogue() []*pb.OptionSpec {
	d.t.Helper()
	resp, err := d.tuning.ListOptions(d.ctx, &pb.ListOptionsRequest{})
	if err != nil || resp.GetKernelRelease() == "" {
		d.t.Fatalf("%v, %v", resp, err)
	}
	return slices.DeleteFunc(resp.GetOptions(), func(o *pb.OptionSpec) bool { return !o.GetSupported() })
}

// core are the options that do as they are told: each takes another value, has
// it, and goes back. Those that the kernel mixes with others, or gives up by
// itself, are not among them.
var core = strings.Fields(`backlog max_connections idle_timeout read_buffer_bytes write_buffer_bytes receive_buffer_bytes
send_buffer_bytes traffic_class linger reuse_port tcp.no_delay tcp.keepalive tcp.keepalive_idle tcp.keepalive_interval
tcp.keepalive_count tcp.user_timeout tcp.defer_accept unix.mode http.request_timeout http.keepalive_timeout
http.max_body_bytes`)

func (d *daemon) core() []*pb.OptionSpec {
	d.t.Helper()
	all := slices.DeleteFunc(d.catalogue(), func(o *pb.OptionSpec) bool { return !slices.Contains(core, o.GetName()) })
	if len(all) != len(core) {
		d.t.Errorf("%d of %d options are there", len(all), len(core))
	}
	return all
}

// another is a value that is not the default.
func another(t *testing.T, o *pb.OptionSpec) *structpb.Value {
	t.Helper()
	switch o.GetType() {
	case pb.OptionSpec_TYPE_BOOL:
		return flag(!o.GetDefaultValue().GetBoolValue())
	case pb.OptionSpec_TYPE_INT:
		return number(float64(min(max(o.GetMin(), 8), o.GetMax())))
	case pb.OptionSpec_TYPE_BYTES_COUNT:
		return number(float64(min(max(o.GetMin(), 100<<10), o.GetMax())))
	case pb.OptionSpec_TYPE_DURATION:
		return word(time.Duration(min(max(o.GetMin(), int64(7*time.Second)), o.GetMax())).String())
	case pb.OptionSpec_TYPE_STRING:
		return word("0600")
	default:
		t.Fatalf("%s: a type that this test does not know", o.GetName())
		return nil
	}
}

// listenOn is an address of each network.
func listenOn(t *testing.T, n pb.Network) string {
	t.Helper()
	scheme := strings.ToLower(strings.TrimPrefix(n.String(), "NETWORK_"))
	if n == pb.Network_NETWORK_TCP || n == pb.Network_NETWORK_UDP {
		return scheme + "://127.0.0.1:0"
	}
	return scheme + "://" + t.TempDir() + "/s"
}

var networks = []pb.Network{
	pb.Network_NETWORK_TCP, pb.Network_NETWORK_UDP, pb.Network_NETWORK_UNIX, pb.Network_NETWORK_UNIXGRAM, pb.Network_NETWORK_UNIXPACKET,
}

// set changes one option and returns what came of it on the listener itself.
func (d *daemon) set(t *testing.T, target, name string, v *structpb.Value) *pb.OptionResult {
	t.Helper()
	resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: target, Options: map[string]*structpb.Value{name: v}})
	if err != nil || len(resp.GetResults()) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	r := resp.GetResults()[0]
	if r.GetTarget() != target || r.GetName() != name || !proto.Equal(r.GetRequested(), v) {
		t.Errorf("%v", r)
	}
	return r
}

func (d *daemon) inForce(t *testing.T, target string, names ...string) map[string]*structpb.Value {
	t.Helper()
	resp, err := d.tuning.GetOptions(d.ctx, &pb.GetOptionsRequest{Target: target, Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetOptions()
}

// Every core option, on every network that it is for: it is set, seen,
// kept over a stop, and set back. Where it is not for the network, it is
// refused.
func TestCoreOptions(t *testing.T) {
	d := serve(t)
	const applied, clamped, unchanged = pb.OptionResult_OUTCOME_APPLIED, pb.OptionResult_OUTCOME_CLAMPED, pb.OptionResult_OUTCOME_UNCHANGED
	for _, n := range networks {
		id := strings.ToLower(strings.TrimPrefix(n.String(), "NETWORK_"))
		target := d.create(id, listenOn(t, n)).GetName()
		of, err := d.tuning.ListOptions(d.ctx, &pb.ListOptionsRequest{Network: n})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range d.core() {
			t.Run(id+"/"+o.GetName(), func(t *testing.T) {
				isOf := slices.Contains(o.GetNetworks(), n)
				if listed := slices.ContainsFunc(of.GetOptions(), func(l *pb.OptionSpec) bool { return l.GetName() == o.GetName() }); listed != isOf {
					t.Errorf("listed for the network: %v", listed)
				}
				v := another(t, o)
				if !isOf {
					_, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: target, Options: map[string]*structpb.Value{o.GetName(): v}})
					wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "options."+o.GetName())
					return
				}
				before := d.inForce(t, target, o.GetName())[o.GetName()]
				if before == nil {
					t.Fatal("it is not in force")
				}
				r := d.set(t, target, o.GetName(), v)
				if o.GetEffect() == pb.OptionSpec_EFFECT_REBIND {
					if r.GetOutcome() != pb.OptionResult_OUTCOME_NEEDS_REBIND || !proto.Equal(r.GetEffective(), before) || r.GetMessage() == "" {
						t.Errorf("%v", r)
					}
					return
				}
				if out := r.GetOutcome(); out != applied && (out != clamped || r.GetMessage() == "") || !proto.Equal(r.GetPrevious(), before) {
					t.Errorf("set: %v, before %v", r, before)
				}
				if now := d.inForce(t, target)[o.GetName()]; !proto.Equal(now, r.GetEffective()) {
					t.Errorf("in force is %v: %v", now, r)
				}
				if wanted := d.get(id).GetSpec().GetOptions()[o.GetName()]; !proto.Equal(wanted, v) {
					t.Errorf("wanted is %v, not %v", wanted, v)
				}
				if again := d.set(t, target, o.GetName(), v); again.GetOutcome() != unchanged && again.GetOutcome() != clamped || !proto.Equal(again.GetEffective(), r.GetEffective()) {
					t.Errorf("again: %v", again)
				}
				d.halt(id)
				if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: id}); err != nil {
					t.Fatal(err)
				}
				if now := d.inForce(t, target, o.GetName())[o.GetName()]; !proto.Equal(now, r.GetEffective()) {
					t.Errorf("started again, in force is %v: %v", now, r)
				}
				back := d.set(t, target, o.GetName(), structpb.NewNullValue())
				if !proto.Equal(back.GetEffective(), before) || back.GetOutcome() != applied {
					t.Errorf("set back: %v, before %v", back, before)
				}
				if wanted := d.get(id).GetSpec().GetOptions()[o.GetName()]; wanted != nil {
					t.Errorf("wanted is still %v", wanted)
				}
			})
		}
		d.remove(id)
	}
}

// Every core option that can be set on an open connection is: on that one alone, and
// on all of a listener. Others are refused.
func TestCoreOptionsOfConnections(t *testing.T) {
	d := serve(t)
	for _, n := range []pb.Network{pb.Network_NETWORK_TCP, pb.Network_NETWORK_UNIX} {
		id := strings.ToLower(strings.TrimPrefix(n.String(), "NETWORK_"))
		l := d.create(id, listenOn(t, n))
		ping(t, l.GetStatus().GetBound()[0])
		ping(t, l.GetStatus().GetBound()[0])
		conns, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: `listener = "` + l.GetName() + `"`})
		if err != nil || len(conns.GetConnections()) != 2 {
			t.Fatalf("%v, %v", conns, err)
		}
		one, other := conns.GetConnections()[0].GetName(), conns.GetConnections()[1].GetName()
		can := d.inForce(t, one)
		for _, o := range d.core() {
			if !slices.Contains(o.GetNetworks(), n) {
				continue
			}
			t.Run(id+"/"+o.GetName(), func(t *testing.T) {
				v, was := another(t, o), can[o.GetName()]
				options := map[string]*structpb.Value{o.GetName(): v}
				all := &pb.SetOptionsRequest{Target: l.GetName(), Options: options, Scope: pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS}
				if was == nil {
					_, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: one, Options: options})
					wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "options."+o.GetName())
					_, err = d.tuning.SetOptions(d.ctx, all)
					wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "options."+o.GetName())
					return
				}
				r := d.set(t, one, o.GetName(), v)
				if r.GetOutcome() != pb.OptionResult_OUTCOME_APPLIED && r.GetOutcome() != pb.OptionResult_OUTCOME_CLAMPED {
					t.Errorf("%v", r)
				}
				if now := d.inForce(t, one, o.GetName())[o.GetName()]; !proto.Equal(now, r.GetEffective()) {
					t.Errorf("in force is %v: %v", now, r)
				}
				if now := d.inForce(t, other, o.GetName())[o.GetName()]; !proto.Equal(now, was) {
					t.Errorf("on the other it is %v, not %v", now, was)
				}
				resp, err := d.tuning.SetOptions(d.ctx, all)
				var count uint64
				for _, r := range resp.GetResults() {
					count += r.GetConnections()
				}
				if err != nil || count != 2 {
					t.Errorf("%v, %v", resp, err)
				}
				if now := d.inForce(t, other, o.GetName())[o.GetName()]; !proto.Equal(now, r.GetEffective()) {
					t.Errorf("on the other it is %v, not %v", now, r.GetEffective())
				}
			})
		}
		if got := d.get(id); got.GetGeneration() != 1 || len(got.GetSpec().GetOptions()) != 0 {
			t.Errorf("the listener is tuned: %v", got)
		}
	}
}

// Every option of the catalogue, whatever the kernel makes of it: the answer
// says what is in force, and what is refused is not wanted either.
func TestEveryOption(t *testing.T) {
	d := serve(t)
	for _, n := range networks {
		id := strings.ToLower(strings.TrimPrefix(n.String(), "NETWORK_"))
		l := d.create(id, listenOn(t, n))
		for _, o := range d.catalogue() {
			if !slices.Contains(o.GetNetworks(), n) {
				continue
			}
			t.Run(id+"/"+o.GetName(), func(t *testing.T) {
				resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{
					Target: l.GetName(), Options: map[string]*structpb.Value{o.GetName(): another(t, o)}, Scope: pb.TuningScope_TUNING_SCOPE_LISTENER,
				})
				if err != nil { // no value for it, as for the name of a device
					wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "options."+o.GetName())
					return
				}
				r := resp.GetResults()[0]
				now, wanted := d.inForce(t, l.GetName(), o.GetName())[o.GetName()], d.get(id).GetSpec().GetOptions()[o.GetName()]
				refused := r.GetOutcome() == pb.OptionResult_OUTCOME_FAILED || r.GetOutcome() == pb.OptionResult_OUTCOME_NEEDS_REBIND
				if r.GetOutcome() == pb.OptionResult_OUTCOME_UNSPECIFIED || refused != (wanted == nil) || refused && r.GetMessage() == "" {
					t.Errorf("%v; wanted is %v", r, wanted)
				}
				if now != nil && !proto.Equal(now, r.GetEffective()) {
					t.Errorf("%v; in force is %v", r, now)
				}
				back := d.set(t, l.GetName(), o.GetName(), structpb.NewNullValue())
				wanted = d.get(id).GetSpec().GetOptions()[o.GetName()]
				if refused := back.GetOutcome() == pb.OptionResult_OUTCOME_FAILED; refused != (wanted != nil) || refused && back.GetMessage() == "" {
					t.Errorf("set back: %v; wanted is %v", back, wanted)
				}
			})
		}
		d.remove(id)
	}
}

// A listener that does not run is tuned for when it does.
func TestSetOptionsStopped(t *testing.T) {
	d := serve(t)
	d.create("web")
	d.halt("web")
	r := d.set(t, "listeners/web", "backlog", number(9))
	if r.GetOutcome() != pb.OptionResult_OUTCOME_DEFERRED {
		t.Errorf("%v", r)
	}
	d.set(t, "listeners/web", "tcp.no_delay", flag(false))
	if got := d.inForce(t, "web"); got["backlog"].GetNumberValue() != 9 || got["tcp.no_delay"].GetBoolValue() || got["max_connections"] == nil {
		t.Errorf("%v", got)
	}
	if got := d.inForce(t, "web", "backlog"); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	if got := d.inForce(t, "web", "backlog", "tcp.no_delay"); got["backlog"].GetNumberValue() != 9 || got["tcp.no_delay"].GetBoolValue() {
		t.Errorf("%v", got)
	}
}

// Values have many forms and one meaning.
func TestOptionForms(t *testing.T) {
	d := serve(t)
	d.create("web")
	for name, forms := range map[string][]*structpb.Value{
		"idle_timeout":         {word("90s"), word("1m30s"), number(90), word("90"), word("90000ms")},
		"receive_buffer_bytes": {word("100KiB"), number(102400), word("102400"), word("102400B"), word("100K"), word("102.4e3")},
		"tcp.no_delay":         {flag(false), word("false"), word("0")},
		"backlog":              {number(77), word("77")},
	} {
		for i, v := range forms {
			resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: map[string]*structpb.Value{name: v}})
			if v.GetStringValue() == "102.4e3" {
				wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "options."+name)
				continue
			}
			if err != nil {
				t.Errorf("%s=%v: %v", name, v, err)
			} else if out := resp.GetResults()[0].GetOutcome(); i > 0 && out != pb.OptionResult_OUTCOME_UNCHANGED {
				t.Errorf("%s=%v: %v", name, v, out)
			}
		}
	}
	got := d.get("web").GetSpec().GetOptions()
	if len(got) != 4 || got["idle_timeout"].GetStringValue() != "1m30s" || got["receive_buffer_bytes"].GetNumberValue() != 102400 {
		t.Errorf("%v", slices.Sorted(maps.Keys(got)))
	}
}

// A value that was forgotten does not set the default back.
func TestUnsetValue(t *testing.T) {
	d := serve(t)
	d.create("web")
	d.set(t, "listeners/web", "backlog", number(5))
	d.unchanged(func() {
		_, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: optionValues{"backlog": {}}})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "options.backlog")
		_, err = d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "new", Listener: &pb.Listener{Spec: withOptions(optionValues{"backlog": {}})}})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "spec.options.backlog")
	})
}
