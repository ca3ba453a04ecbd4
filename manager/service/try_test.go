package service_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

type optionValues = map[string]*structpb.Value

// try changes options for a time.
func (d *daemon) try(t *testing.T, target string, after time.Duration, scope pb.TuningScope, options optionValues) *pb.SetOptionsResponse {
	t.Helper()
	resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: target, Options: options, Scope: scope, RevertAfter: durationpb.New(after)})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetChangeId() == "" || time.Until(resp.GetRevertTime().AsTime()) > after {
		t.Errorf("%v", resp)
	}
	return resp
}

func (d *daemon) confirm(t *testing.T, id string, revert bool) {
	t.Helper()
	if _, err := d.tuning.ConfirmOptions(d.ctx, &pb.ConfirmOptionsRequest{ChangeId: id, Revert: revert}); err != nil {
		t.Fatal(err)
	}
}

// gone checks that a try has ended.
func (d *daemon) gone(t *testing.T, id string) {
	t.Helper()
	for _, revert := range []bool{false, true} {
		_, err := d.tuning.ConfirmOptions(d.ctx, &pb.ConfirmOptionsRequest{ChangeId: id, Revert: revert})
		if meta := wantError(t, err, codes.NotFound, "CHANGE_NOT_FOUND"); meta["change_id"] != id {
			t.Errorf("metadata %v", meta)
		}
	}
}

// optionEvents are the types of the events of options, oldest first.
func (d *daemon) optionEvents(t *testing.T) (types []string) {
	t.Helper()
	resp, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(resp.GetEvents()) {
		if strings.HasPrefix(e.GetType(), "option.") && e.GetType() != "option.changed" {
			types = append(types, strings.TrimPrefix(e.GetType(), "option."))
		}
	}
	return types
}

func (d *daemon) wantInForce(t *testing.T, target string, want optionValues) {
	t.Helper()
	got := d.inForce(t, target, slices.Collect(maps.Keys(want))...)
	for name, v := range want {
		if !proto.Equal(got[name], v) {
			t.Errorf("%s: %s is %v, not %v", target, name, got[name], v)
		}
	}
}

const hour = time.Hour

// A tried value is in force at once, everywhere, and wanted nowhere until it is
// confirmed; undone, all is as before.
func TestTry(t *testing.T) {
	for _, revert := range []bool{false, true} {
		t.Run(fmt.Sprint("revert ", revert), func(t *testing.T) {
			d := serve(t)
			l := d.create("web")
			ping(t, l.GetStatus().GetBound()[0])
			conns := d.conns(t)
			old := optionValues{"backlog": number(4096), "tcp.no_delay": flag(true), "idle_timeout": word("0s")}
			tried := optionValues{"backlog": number(7), "tcp.no_delay": flag(false), "idle_timeout": word("1h0m0s")}
			resp := d.try(t, "web", hour, pb.TuningScope_TUNING_SCOPE_ALL, tried)
			d.wantInForce(t, "listeners/web", tried)
			d.wantInForce(t, conns[0], optionValues{"tcp.no_delay": flag(false)})
			ping(t, l.GetStatus().GetBound()[0])
			now := d.get("web")
			if now.GetGeneration() != 1 || now.GetEtag() != l.GetEtag() || len(now.GetSpec().GetOptions()) > 0 {
				t.Errorf("it is wanted already: %v", now)
			}
			if m := now.GetStatus().GetMessage(); !strings.Contains(m, "backlog=7") || !strings.Contains(m, resp.GetChangeId()) {
				t.Errorf("message %q", m)
			}
			d.confirm(t, resp.GetChangeId(), revert)
			d.gone(t, resp.GetChangeId())
			last, want := d.get("web"), tried
			if revert {
				want = old
				if last.GetGeneration() != 1 || last.GetEtag() != l.GetEtag() || len(last.GetSpec().GetOptions()) > 0 {
					t.Errorf("%v", last)
				}
			} else if last.GetGeneration() != 2 || last.GetEtag() == l.GetEtag() || len(last.GetSpec().GetOptions()) != 3 {
				t.Errorf("%v", last)
			}
			if last.GetStatus().GetMessage() != "" {
				t.Errorf("message %q", last.GetStatus().GetMessage())
			}
			d.wantInForce(t, "listeners/web", want)
			if conns := d.conns(t); len(conns) != 2 {
				t.Errorf("%v", conns)
			}
			for _, c := range d.conns(t) {
				d.wantInForce(t, c, optionValues{"tcp.no_delay": want["tcp.no_delay"]})
			}
			end := "confirmed"
			if revert {
				end = "reverted"
			}
			if got := d.optionEvents(t); !slices.Equal(got, []string{"tried", end}) {
				t.Errorf("events %v", got)
			}
		})
	}
}

// conns are the names of the open connections.
// A try says what a change for good says: a row for the listener, and a row for
// the connections that had the same before.
func TestTryRows(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	address := l.GetStatus().GetBound()[0]
	for range 3 {
		ping(t, address)
	}
	odd := d.conns(t)[1]
	rows := func(after time.Duration) (id string, rows []string) {
		set := func(target string, v *structpb.Value, after *durationpb.Duration) *pb.SetOptionsResponse {
			t.Helper()
			resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{
				Target: target, Options: optionValues{"tcp.keepalive_idle": v}, RevertAfter: after,
			})
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		set("web", word("50s"), nil)
		set(odd, word("40s"), nil)
		var wait *durationpb.Duration
		if after > 0 {
			wait = durationpb.New(after)
		}
		resp := set("web", word("60s"), wait)
		for _, r := range resp.GetResults() {
			rows = append(rows, fmt.Sprintf("%s %d %v %v %v", r.GetTarget(), r.GetConnections(), r.GetPrevious().AsInterface(), r.GetEffective().AsInterface(), r.GetOutcome()))
		}
		slices.Sort(rows)
		return resp.GetChangeId(), rows
	}
	_, plain := rows(0)
	id, tried := rows(hour)
	want := []string{
		"listeners/web 0 50s 1m0s OUTCOME_APPLIED",
		"listeners/web 1 40s 1m0s OUTCOME_APPLIED",
		"listeners/web 2 50s 1m0s OUTCOME_APPLIED",
	}
	if !slices.Equal(plain, want) || !slices.Equal(tried, want) {
		t.Errorf("plain %q\ntried %q\nwant %q", plain, tried, want)
	}
	d.confirm(t, id, true)
}

func (d *daemon) conns(t *testing.T) (names []string) {
	t.Helper()
	resp, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.GetConnections() {
		names = append(names, c.GetName())
	}
	return names
}

// Nobody confirms: the old values come back, and an event says so.
func TestTryDeadline(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	ping(t, l.GetStatus().GetBound()[0])
	conn := d.conns(t)[0]
	onList := d.try(t, "web", time.Second, pb.TuningScope_TUNING_SCOPE_ALL, optionValues{"tcp.keepalive_idle": word("100s"), "receive_buffer_bytes": number(50000)})
	onConn := d.try(t, conn, time.Second, 0, optionValues{"tcp.cork": flag(true)})
	eventually(t, func() bool { return len(d.optionEvents(t)) == 4 })
	if got := d.optionEvents(t); !slices.Equal(got, []string{"tried", "tried", "reverted", "reverted"}) {
		t.Errorf("events %v", got)
	}
	d.wantInForce(t, "listeners/web", optionValues{"tcp.keepalive_idle": word("2h0m0s"), "buffer_lock": word("none")})
	d.wantInForce(t, conn, optionValues{"tcp.keepalive_idle": word("2h0m0s"), "tcp.cork": flag(false), "buffer_lock": word("none")})
	d.gone(t, onList.GetChangeId())
	d.gone(t, onConn.GetChangeId())
}

// Each connection gets back what it had, which may be its own.
func TestTryGivesBackOwn(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	at := l.GetStatus().GetBound()[0]
	for range 3 {
		ping(t, at)
	}
	conns := d.conns(t)
	d.set(t, conns[1], "tcp.keepalive_idle", word("50s"))
	d.set(t, conns[1], "receive_buffer_bytes", number(30000))
	d.set(t, "listeners/web", "backlog", number(9))
	tried := optionValues{"tcp.keepalive_idle": word("100s"), "receive_buffer_bytes": number(50000), "backlog": number(5)}
	resp := d.try(t, "web", hour, pb.TuningScope_TUNING_SCOPE_ALL, tried)
	d.set(t, conns[2], "tcp.keepalive_idle", word("1m10s")) // for good, meanwhile
	d.confirm(t, resp.GetChangeId(), true)
	d.wantInForce(t, "listeners/web", optionValues{"tcp.keepalive_idle": word("2h0m0s"), "backlog": number(9)})
	idle := []string{"2h0m0s", "50s", "1m10s"}
	buffers := []string{"none", "receive", "none"} // which of them are set
	for i, c := range conns {
		d.wantInForce(t, c, optionValues{"tcp.keepalive_idle": word(idle[i]), "buffer_lock": word(buffers[i])})
	}
	d.wantInForce(t, conns[1], optionValues{"receive_buffer_bytes": number(60000)})
}

// The scopes of a try: what it does not reach it does not give back either.
func TestTryScopes(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	at := l.GetStatus().GetBound()[0]
	ping(t, at)
	first := d.conns(t)[0]
	d.set(t, first, "tcp.keepalive_idle", word("50s"))
	resp := d.try(t, "web", hour, pb.TuningScope_TUNING_SCOPE_LISTENER, optionValues{"tcp.keepalive_idle": word("100s")})
	d.wantInForce(t, first, optionValues{"tcp.keepalive_idle": word("50s")})
	ping(t, at)
	conns := d.conns(t)
	second := conns[slices.IndexFunc(conns, func(c string) bool { return c != first })]
	d.wantInForce(t, second, optionValues{"tcp.keepalive_idle": word("1m40s")})
	d.confirm(t, resp.GetChangeId(), true)
	d.wantInForce(t, first, optionValues{"tcp.keepalive_idle": word("50s")})
	d.wantInForce(t, second, optionValues{"tcp.keepalive_idle": word("2h0m0s")})

	resp = d.try(t, "web", hour, pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS, optionValues{"tcp.keepalive_idle": word("100s")})
	d.wantInForce(t, "listeners/web", optionValues{"tcp.keepalive_idle": word("2h0m0s")})
	d.confirm(t, resp.GetChangeId(), false)
	d.wantInForce(t, first, optionValues{"tcp.keepalive_idle": word("1m40s")})
	if got := d.get("web"); got.GetGeneration() != 1 {
		t.Errorf("open connections are not wanted: %v", got)
	}
}

// What else happens to the listener meanwhile.
func TestTryMeanwhile(t *testing.T) {
	const all = pb.TuningScope_TUNING_SCOPE_ALL
	begin := func(t *testing.T) (*daemon, string) {
		d := serve(t)
		d.create("web")
		return d, d.try(t, "web", hour, all, optionValues{"backlog": number(7), "tcp.no_delay": flag(false)}).GetChangeId()
	}
	t.Run("the same option for good", func(t *testing.T) {
		d, id := begin(t)
		d.set(t, "listeners/web", "backlog", number(20))
		d.confirm(t, id, true)
		d.wantInForce(t, "listeners/web", optionValues{"backlog": number(20), "tcp.no_delay": flag(true)})
		if o := d.get("web").GetSpec().GetOptions(); len(o) != 1 || o["backlog"].GetNumberValue() != 20 {
			t.Errorf("wanted %v", o)
		}
	})
	t.Run("all for good", func(t *testing.T) {
		d, id := begin(t)
		d.set(t, "listeners/web", "backlog", number(7)) // the very value
		d.set(t, "listeners/web", "tcp.no_delay", flag(false))
		d.gone(t, id)
		if o := d.get("web"); len(o.GetSpec().GetOptions()) != 2 || o.GetGeneration() != 3 {
			t.Errorf("wanted %v", o)
		}
		if got := d.optionEvents(t); !slices.Equal(got, []string{"tried", "settled", "settled"}) {
			t.Errorf("events %v", got)
		}
	})
	t.Run("another option for good", func(t *testing.T) {
		d, id := begin(t)
		d.set(t, "listeners/web", "idle_timeout", word("1h0m0s"))
		if o := d.get("web").GetSpec().GetOptions(); len(o) != 1 {
			t.Errorf("what is tried is saved: %v", o)
		}
		d.confirm(t, id, true)
		d.wantInForce(t, "listeners/web", optionValues{"backlog": number(4096), "idle_timeout": word("1h0m0s")})
	})
	t.Run("tried again", func(t *testing.T) {
		d, id := begin(t)
		second := d.try(t, "web", hour, all, optionValues{"backlog": number(30)}).GetChangeId()
		d.confirm(t, id, true)
		d.wantInForce(t, "listeners/web", optionValues{"backlog": number(30), "tcp.no_delay": flag(true)})
		d.confirm(t, second, true)
		d.wantInForce(t, "listeners/web", optionValues{"backlog": number(4096)})
	})
	t.Run("updated", func(t *testing.T) {
		d, id := begin(t)
		update := &pb.UpdateListenerRequest{
			Listener: &pb.Listener{Name: "web", Labels: map[string]string{"a": "b"}, Spec: &pb.ListenerSpec{
				Listen: []string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"}, Options: optionValues{"tcp.no_delay": flag(true)},
			}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels", "spec.listen", "spec.options"}}, AllowRebind: true,
		}
		if _, err := d.listeners.UpdateListener(d.ctx, update); err != nil {
			t.Fatal(err)
		}
		now := d.get("web")
		for _, s := range now.GetStatus().GetSockets() { // the new one too
			if s.GetQueue().GetAcceptQueueLimit() != 7 {
				t.Errorf("%v", s)
			}
		}
		if len(now.GetStatus().GetSockets()) != 2 || len(now.GetSpec().GetOptions()) != 1 {
			t.Errorf("%v", now)
		}
		d.wantInForce(t, "listeners/web", optionValues{"tcp.no_delay": flag(true)})
		d.confirm(t, id, true)
		d.wantInForce(t, "listeners/web", optionValues{"backlog": number(4096), "tcp.no_delay": flag(true)})
	})
	t.Run("stopped", func(t *testing.T) {
		d, id := begin(t)
		c := ping(t, d.get("web").GetStatus().GetBound()[0])
		conn := d.conns(t)[0]
		if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", DrainTimeout: durationpb.New(hour)}); err != nil {
			t.Fatal(err)
		}
		d.gone(t, id)
		d.wantInForce(t, conn, optionValues{"tcp.no_delay": flag(true)})
		exchange(t, c)
		c.Close()
		eventually(t, func() bool { return d.get("web").GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })
		_, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: optionValues{"backlog": number(5)}, RevertAfter: durationpb.New(hour)})
		wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
		if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		d.wantInForce(t, "listeners/web", optionValues{"backlog": number(4096), "tcp.no_delay": flag(true)})
	})
	t.Run("deleted", func(t *testing.T) {
		d, id := begin(t)
		d.remove("web")
		d.gone(t, id)
		if got := d.optionEvents(t); !slices.Equal(got, []string{"tried", "reverted"}) {
			t.Errorf("events %v", got)
		}
	})
	t.Run("open connections for good", func(t *testing.T) {
		d, id := begin(t)
		ping(t, d.get("web").GetStatus().GetBound()[0])
		conn := d.conns(t)[0]
		if _, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{
			Target: "web", Options: optionValues{"tcp.no_delay": flag(false)}, Scope: pb.TuningScope_TUNING_SCOPE_OPEN_CONNECTIONS,
		}); err != nil {
			t.Fatal(err)
		}
		d.confirm(t, id, true)
		d.wantInForce(t, conn, optionValues{"tcp.no_delay": flag(false)})
		d.wantInForce(t, "listeners/web", optionValues{"tcp.no_delay": flag(true)})
	})
}

// A daemon that ends while something is tried comes back with the old values.
func TestTryNotSaved(t *testing.T) {
	dir := t.TempDir()
	d := serveState(t, dir)
	d.create("web")
	d.try(t, "web", hour, pb.TuningScope_TUNING_SCOPE_ALL, optionValues{"backlog": number(7)})
	d.set(t, "listeners/web", "tcp.no_delay", flag(false)) // saves the record
	d.stop()
	d = serveState(t, dir)
	d.wantInForce(t, "listeners/web", optionValues{"backlog": number(4096), "tcp.no_delay": flag(false)})
	if o := d.get("web").GetSpec().GetOptions(); len(o) != 1 {
		t.Errorf("wanted %v", o)
	}
}

// What cannot be tried.
func TestTryRefused(t *testing.T) {
	d := serve(t)
	d.create("web")
	ask := func(after *durationpb.Duration, options optionValues) (*pb.SetOptionsResponse, error) {
		return d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: options, RevertAfter: after})
	}
	d.unchanged(func() {
		for _, after := range []*durationpb.Duration{durationpb.New(0), durationpb.New(-1), durationpb.New(hour + 1), {Seconds: 1 << 60}} {
			_, err := ask(after, optionValues{"backlog": number(5)})
			wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "revert_after")
		}
		_, err := ask(durationpb.New(hour), optionValues{"backlgo": number(5)})
		if meta := wantError(t, err, codes.InvalidArgument, "OPTION_UNKNOWN", "options.backlgo"); meta["nearest"] != "backlog" {
			t.Errorf("metadata %v", meta)
		}
		resp, err := ask(durationpb.New(hour), optionValues{"reuse_port": flag(true)})
		if err != nil || resp.GetChangeId() != "" || resp.GetResults()[0].GetOutcome() != pb.OptionResult_OUTCOME_NEEDS_REBIND {
			t.Errorf("nothing is tried: %v, %v", resp, err)
		}
		resp, err = d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: "web", Options: optionValues{"backlog": number(5)}, RevertAfter: durationpb.New(hour), ValidateOnly: true})
		if err != nil || resp.GetChangeId() != "" {
			t.Errorf("only checked: %v, %v", resp, err)
		}
		_, err = d.tuning.ConfirmOptions(d.ctx, &pb.ConfirmOptionsRequest{})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "change_id")
	})
	d.gone(t, "ffffffff")
	var last string
	for i := range 65 {
		d.create(fmt.Sprint("l", i))
		resp, err := d.tuning.SetOptions(d.ctx, &pb.SetOptionsRequest{Target: fmt.Sprint("l", i), Options: optionValues{"backlog": number(5)}, RevertAfter: durationpb.New(hour)})
		if i == 64 {
			wantError(t, err, codes.ResourceExhausted, "LIMIT_REACHED")
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = resp.GetChangeId()
	}
	d.confirm(t, last, true)
	d.try(t, "web", hour, 0, optionValues{"backlog": number(5)})
}
