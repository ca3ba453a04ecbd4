package service_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// SetOptions that only checks says what can be known without changing anything.
func TestPreview(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	ping(t, l.GetStatus().GetBound()[0])
	d.create("off")
	if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "off"}); err != nil {
		t.Fatal(err)
	}
	check := func(target string, scope pb.TuningScope, option string, v *structpb.Value) *pb.OptionResult {
		t.Helper()
		resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{
			Target: target, Scope: scope, ValidateOnly: true, Options: optionValues{option: v},
		})
		if err != nil || len(resp.GetResults()) != 1 {
			t.Fatalf("%s=%v: %v, %v", option, v, resp, err)
		}
		return resp.GetResults()[0]
	}
	const all, open = pb.TuningScope_TUNING_SCOPE_ALL, pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS
	d.unchanged(func() {
		for _, c := range []struct {
			target  string
			scope   pb.TuningScope
			option  string
			value   *structpb.Value
			outcome string
			message string
		}{
			{"web", all, "tcp.no_delay", flag(false), "UNSPECIFIED", "would be set"},
			{"web", all, "tcp.no_delay", flag(true), "UNCHANGED", ""},
			{"web", open, "tcp.no_delay", flag(true), "UNSPECIFIED", "would be set"},
			{"web", all, "idle_timeout", word("0s"), "UNCHANGED", ""},
			{"web", all, "idle_timeout", word("5s"), "UNSPECIFIED", "would be set"},
			{"web", all, "idle_timeout", structpb.NewNullValue(), "UNCHANGED", ""},
			{"web", all, "backlog", number(1 << 30), "CLAMPED", "net.core.somaxconn"},
			{"web", all, "send_buffer_bytes", number(1 << 29), "CLAMPED", "net.core.wmem_max"},
			{"web", all, "reuse_port", flag(true), "NEEDS_REBIND", "--rebind"},
			{"web", all, "reuse_port", flag(false), "UNCHANGED", ""},
			{"web", all, "bind_to_device", word("nosuch0"), "FAILED", "ENODEV"},
			{"web", all, "so:1:9999", number(1), "FAILED", "OPTION_UNSUPPORTED"},
			{"off", all, "backlog", number(7), "DEFERRED", "when the listener runs"},
			{"off", all, "so:1:9999", number(1), "FAILED", "OPTION_UNSUPPORTED"},
			{d.conns(t)[0], 0, "tcp.no_delay", flag(true), "UNCHANGED", ""},
			{d.conns(t)[0], 0, "tcp.no_delay", flag(false), "UNSPECIFIED", "would be set"},
			{d.conns(t)[0], 0, "so:1:9999", number(1), "FAILED", "OPTION_UNSUPPORTED"},
		} {
			r := check(c.target, c.scope, c.option, c.value)
			if r.GetOutcome().String() != "OUTCOME_"+c.outcome || !strings.Contains(r.GetMessage()+r.GetErrno()+r.GetReason(), c.message) {
				t.Errorf("%s %s=%v: %v, want %s %q", c.target, c.option, c.value, r, c.outcome, c.message)
			}
			if r.GetEffective().String() != r.GetPrevious().String() {
				t.Errorf("it is not changed: %v", r)
			}
		}
	})
}

// An atomic change says which listener and which field it failed for, a plain
// one in the change.
func TestApplyField(t *testing.T) {
	d := serve(t)
	wish := func(id, option string, v *structpb.Value) *pb.Listener {
		return &pb.Listener{Name: id, Spec: withOptions(optionValues{option: v})}
	}
	for _, c := range []struct {
		bad    *pb.Listener
		code   codes.Code
		reason string
		field  string
	}{
		{wish("bad", "bind_to_device", word("nosuch0")), codes.InvalidArgument, "SPEC_INVALID", "spec.options.bind_to_device"},
		{wish("bad", "so:1:9999", number(1)), codes.Unimplemented, "OPTION_UNSUPPORTED", "spec.options.so:SOL_SOCKET:9999"},
		{wish("bad", "backlog", number(0)), codes.InvalidArgument, "SPEC_INVALID", "spec.options.backlog"},
	} {
		for _, all := range [][]*pb.Listener{{c.bad}, {wish("good", "backlog", number(5)), c.bad}} {
			r := &pb.ApplyListenersRequest{Listeners: all, Manager: "file", Atomic: true}
			d.unchanged(func() {
				_, err := d.listeners.ApplyListeners(d.ctx, r)
				var violations []string
				if c.field == "spec.options.backlog" {
					violations = append(violations, c.field)
				}
				if meta := wantError(t, err, c.code, c.reason, violations...); meta["listener"] != "bad" || meta["field"] != c.field {
					t.Errorf("metadata %v", meta)
				}
			})
			r.Atomic, r.ValidateOnly = false, true
			resp, err := d.listeners.ApplyListeners(d.ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			if e := resp.GetChanges()[len(all)-1].GetError(); e.GetCode() != c.reason || e.GetField() != c.field {
				t.Errorf("%v", e)
			}
		}
	}
}
