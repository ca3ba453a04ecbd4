package service_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// setsockopt and getsockopt, before bind and on a connection.
func TestSocketOptions(t *testing.T) {
	d := serve(t)
	name := d.sock(pb.Network_NETWORK_TCP)
	tune := func(option string, v *structpb.Value) *pb.OptionResult {
		t.Helper()
		resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: name, Options: map[string]*structpb.Value{option: v}})
		if err != nil || len(resp.GetResults()) != 1 {
			t.Fatal(resp, err)
		}
		r := resp.GetResults()[0]
		if r.GetTarget() != name || r.GetName() != option {
			t.Error(r)
		}
		return r
	}
	yes := structpb.NewBoolValue(true)
	for _, option := range []string{"reuse_address", "reuse_port", "tcp.no_delay", "ip.free_bind"} {
		if r := tune(option, yes); r.GetOutcome() != pb.OptionResult_OUTCOME_APPLIED || !r.GetEffective().GetBoolValue() {
			t.Error(r)
		}
	}
	if r := tune("so:SOL_SOCKET:SO_NOFCS", structpb.NewNumberValue(1)); r.GetOutcome() != pb.OptionResult_OUTCOME_APPLIED {
		t.Error(r)
	}
	if r := tune("bind_to_device", structpb.NewStringValue("nonesuch0")); r.GetOutcome() != pb.OptionResult_OUTCOME_FAILED || r.GetErrno() == "" {
		t.Error(r)
	}
	got, err := d.tuning.GetOptions(d.ctx, &pb.GetOptionsRequest{Target: name, Names: []string{"tcp.no_delay", "reuse_port", "tcp.cork"}})
	if o := got.GetOptions(); err != nil || len(o) != 3 || !o["tcp.no_delay"].GetBoolValue() || !o["reuse_port"].GetBoolValue() || o["tcp.cork"].GetBoolValue() {
		t.Error(got, err)
	}
	if got, err := d.tuning.GetOptions(d.ctx, &pb.GetOptionsRequest{Target: name}); err != nil || len(got.GetOptions()) < 20 || got.GetOptions()["idle_timeout"] != nil {
		t.Error(got, err)
	}
	d.close(name)
	_, err = d.tuning.GetOptions(d.ctx, &pb.GetOptionsRequest{Target: name})
	wantErrno(t, err, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9")
	_, err = d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: name, Options: map[string]*structpb.Value{"tcp.cork": yes}})
	wantErrno(t, err, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9")

	a, b := d.joined()
	for field, r := range map[string]*pb.SetOptionsRequest{
		"options.idle_timeout": {Options: map[string]*structpb.Value{"idle_timeout": structpb.NewStringValue("1s")}},
		"options.broadcast":    {Options: map[string]*structpb.Value{"broadcast": yes}},
		"validate_only":        {ValidateOnly: true},
		"etag":                 {Etag: "x"},
		"revert_after":         {RevertAfter: durationpb.New(time.Second)},
		"scope":                {Scope: pb.TuningScope_TUNING_SCOPE_LISTENER},
	} {
		r.Target = a
		_, err := d.tuning.SetOptions(d.ctx, r)
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", field)
	}
	name = a
	if r := tune("tcp.cork", yes); r.GetOutcome() != pb.OptionResult_OUTCOME_APPLIED {
		t.Error(r)
	}
	d.close(a, b)
}
