package service_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// asNobody runs the test again as a user without capabilities, where that may be
// done, and reports whether this is that process.
func asNobody(t *testing.T) bool {
	t.Helper()
	const mark = "SOCKMGR_TEST_NOBODY"
	if os.Getuid() != 0 {
		return true
	}
	exe, err := os.Open("/proc/self/exe") // its directory may be closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	return false
}

// Without the capability the answer names it, nothing is wanted that is not
// there, and what needs none beside it is done.
func TestCapabilityMissing(t *testing.T) {
	if !asNobody(t) {
		return
	}
	d := serve(t)
	l := d.create("web")
	ping(t, l.GetStatus().GetBound()[0])
	for name, v := range map[string]*structpb.Value{
		"priority": number(7), "mark": number(1), "receive_buffer_force_bytes": number(50000), "send_buffer_force_bytes": number(50000),
		"so:SOL_SOCKET:SO_DEBUG": number(1),
	} {
		for _, after := range []*durationpb.Duration{nil, durationpb.New(hour)} {
			resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: optionValues{name: v}, RevertAfter: after})
			if err != nil || len(resp.GetResults()) == 0 || resp.GetChangeId() != "" {
				t.Errorf("%s: %v, %v", name, resp, err)
			}
			for _, r := range resp.GetResults() {
				errno, message, reason := "EPERM", "CAP_NET_ADMIN", "CAPABILITY_MISSING"
				if strings.HasPrefix(name, "so:") {
					errno, message = "EACCES", "needs a capability"
				}
				if r.GetReason() != reason || r.GetOutcome() != pb.OptionResult_OUTCOME_FAILED || r.GetErrno() != errno || !strings.Contains(r.GetMessage(), message) ||
					!strings.Contains(r.GetEffective().String(), r.GetPrevious().String()) {
					t.Errorf("%v", r)
				}
			}
		}
		if strings.HasPrefix(name, "so:") {
			continue
		}
		_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "new", Listener: &pb.Listener{Spec: withOptions(optionValues{name: v})}})
		if meta := wantError(t, err, codes.PermissionDenied, "CAPABILITY_MISSING"); meta["capability"] != "CAP_NET_ADMIN" || meta["errno"] != "EPERM" {
			t.Errorf("%s: metadata %v", name, meta)
		}
	}
	resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: optionValues{"priority": number(6), "mark": number(1), "backlog": number(5)}})
	outcomes := map[string]pb.OptionResult_Outcome{}
	for _, r := range resp.GetResults() {
		if r.GetConnections() == 0 {
			outcomes[r.GetName()] = r.GetOutcome()
		}
	}
	const applied = pb.OptionResult_OUTCOME_APPLIED
	if err != nil || outcomes["priority"] != applied || outcomes["backlog"] != applied || outcomes["mark"] != pb.OptionResult_OUTCOME_FAILED {
		t.Errorf("%v, %v", resp, err)
	}
	if o := d.get("web").GetSpec().GetOptions(); len(o) != 2 {
		t.Errorf("wanted %v", o)
	}
	// As part of a whole it is refused as a whole.
	d.unchanged(func() {
		_, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{Listener: &pb.Listener{
			Name: "web", Spec: &pb.ListenerSpec{Options: optionValues{"backlog": number(9), "mark": number(1)}},
		}})
		if err == nil {
			t.Error("the mark is taken")
		}
		meta := wantError(t, err, codes.PermissionDenied, "CAPABILITY_MISSING")
		if meta["errno"] != "EPERM" || meta["capability"] != "CAP_NET_ADMIN" {
			t.Errorf("metadata %v", meta)
		}
	})
}

// What is wrong with a request of options is said of each, and nothing changes.
func TestBadOptions(t *testing.T) {
	d := serve(t)
	d.create("web")
	d.unchanged(func() {
		for what, c := range map[string]struct {
			options optionValues
			reason  string
			fields  []string
			near    string
		}{
			"too large":         {optionValues{"backlog": number(1 << 40)}, "SPEC_INVALID", []string{"options.backlog"}, ""},
			"another type":      {optionValues{"tcp.no_delay": word("perhaps")}, "SPEC_INVALID", []string{"options.tcp.no_delay"}, ""},
			"another network":   {optionValues{"unix.mode": word("0600")}, "SPEC_INVALID", []string{"options.unix.mode"}, ""},
			"a slip":            {optionValues{"no_dealy": flag(true)}, "OPTION_UNKNOWN", []string{"options.no_dealy"}, "tcp.no_delay"},
			"no slip":           {optionValues{"xyzzy": flag(true)}, "OPTION_UNKNOWN", []string{"options.xyzzy"}, ""},
			"not a word of it":  {optionValues{"tcp.congestion": word("fastest")}, "SPEC_INVALID", []string{"options.tcp.congestion"}, ""},
			"raw, in the table": {optionValues{"so:1:9": number(1)}, "SPEC_INVALID", []string{"options.so:1:9"}, "tcp.keepalive"},
			"several":           {optionValues{"backlog": number(0), "bcklog": number(1)}, "SPEC_INVALID", []string{"options.backlog", "options.bcklog"}, ""},
			"two names of one":  {optionValues{"so:1:43": number(0), "so:SOL_SOCKET:SO_NOFCS": number(1)}, "SPEC_INVALID", nil, ""},
			"none":              {nil, "SPEC_INVALID", []string{"options"}, ""},
		} {
			_, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: c.options})
			if c.fields == nil { // either of the two
				if err == nil || !strings.Contains(err.Error(), "twice") {
					t.Errorf("%s: %v", what, err)
				}
				continue
			}
			if meta := wantError(t, err, codes.InvalidArgument, c.reason, c.fields...); meta["nearest"] != c.near {
				t.Errorf("%s: nearest %q, want %q", what, meta["nearest"], c.near)
			}
		}
		_, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: optionValues{"backlog": number(5)}, Etag: "stale", RevertAfter: durationpb.New(hour)})
		wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
	})
}
