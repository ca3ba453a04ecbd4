package service_test

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (d *daemon) pause(mode pb.PauseMode) *pb.Listener {
	d.t.Helper()
	resp, err := d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "web", Mode: mode})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetListener()
}

func (d *daemon) resume() *pb.Listener {
	d.t.Helper()
	resp, err := d.listeners.ResumeListener(d.ctx, &pb.ResumeListenerRequest{Name: "web"})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetListener()
}

func (d *daemon) drain(timeout time.Duration) *pb.Listener {
	d.t.Helper()
	resp, err := d.listeners.DrainListener(d.ctx, &pb.DrainListenerRequest{Name: "web", Timeout: durationpb.New(timeout)})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetListener()
}

func (d *daemon) wantState(l *pb.Listener, desired pb.ListenerSpec_DesiredState, state pb.ListenerStatus_State) {
	d.t.Helper()
	if l.GetSpec().GetDesiredState() != desired || l.GetStatus().GetState() != state {
		d.t.Errorf("%v", l)
	}
}

const (
	wantsRunning = pb.ListenerSpec_DESIRED_STATE_RUNNING
	wantsPaused  = pb.ListenerSpec_DESIRED_STATE_PAUSED
	isRunning    = pb.ListenerStatus_STATE_RUNNING
	isPaused     = pb.ListenerStatus_STATE_PAUSED
	isDraining   = pb.ListenerStatus_STATE_DRAINING
)

// A pause is kept over changes of other things, a start, and a restart.
func TestPauseIsKept(t *testing.T) {
	dir := t.TempDir()
	d := serveState(t, dir)
	d.create("web")
	d.wantState(d.pause(pb.PauseMode_PAUSE_MODE_REFUSE), wantsPaused, isPaused)
	before := d.get("web")
	if again := d.pause(pb.PauseMode_PAUSE_MODE_REFUSE); again.GetGeneration() != before.GetGeneration() {
		t.Errorf("paused again: %v", again)
	}
	if d.pause(pb.PauseMode_PAUSE_MODE_UNSPECIFIED).GetSpec().GetPauseMode() != pb.PauseMode_PAUSE_MODE_REFUSE {
		t.Error("the mode is forgotten")
	}
	d.label("web", "x")
	d.wantState(d.get("web"), wantsPaused, isPaused)
	// A new address refuses too; a backlog waits until listen(2) is called.
	resp, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{AllowRebind: true, Listener: &pb.Listener{Name: "web", Spec: &pb.ListenerSpec{
		Listen: []string{"tcp://127.0.0.1:0", "tcp://127.0.0.2:0"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range resp.GetListener().GetStatus().GetBound() {
		refused(t, a)
	}
	r := d.set(t, "listeners/web", "backlog", number(7))
	if r.GetOutcome() != pb.OptionResult_OUTCOME_DEFERRED {
		t.Errorf("%v", r)
	}
	refused(t, d.get("web").GetStatus().GetBound()[0])
	d.stop()
	d = serveState(t, dir)
	l := d.get("web")
	d.wantState(l, wantsPaused, isPaused)
	for _, a := range l.GetStatus().GetBound() {
		refused(t, a)
	}
	l = d.resume()
	d.wantState(l, wantsRunning, isRunning)
	for _, a := range l.GetStatus().GetBound() {
		ping(t, a)
	}
	if got := d.get("web").GetStatus().GetAcceptQueueLimit(); got != 14 {
		t.Errorf("limit of both: %d", got)
	}
}

func refused(t *testing.T, a *pb.SocketAddress) {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort(a.GetIp(), portText(a)))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v: %v, %v", a.GetUri(), c, err)
	}
}

// A Unix path refuses and serves again, by Start too.
func TestPauseUnix(t *testing.T) {
	d := serve(t)
	path := t.TempDir() + "/s"
	d.create("web", "unix://"+path)
	d.pause(pb.PauseMode_PAUSE_MODE_REFUSE)
	if c, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange(t, c)
}

// resume_after ends a pause, also when the daemon was restarted meanwhile.
func TestResumeAfter(t *testing.T) {
	dir := t.TempDir()
	d := serveState(t, dir)
	d.create("web")
	resp, err := d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "web", ResumeAfter: durationpb.New(400 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetListener().GetStatus().GetResumeTime().AsTime().Before(time.Now().Add(-time.Second)) {
		t.Errorf("%v", resp)
	}
	d.stop()
	d = serveState(t, dir)
	resumed := func() bool { // it runs a moment before that is saved
		l := d.get("web")
		return l.GetStatus().GetState() == isRunning && l.GetSpec().GetDesiredState() == wantsRunning
	}
	eventually(t, resumed)
	if _, err := d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "web", ResumeAfter: durationpb.New(time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, resumed)
	for field, r := range map[string]*pb.PauseListenerRequest{
		"resume_after": {Name: "web", ResumeAfter: durationpb.New(-1)}, "mode": {Name: "web", Mode: 9},
	} {
		d.unchanged(func() {
			_, err := d.listeners.PauseListener(d.ctx, r)
			wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", field)
		})
	}
}

// A resume that fails is tried again, and what is wrong is told.
func TestResumeTakenPort(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	d.pause(pb.PauseMode_PAUSE_MODE_REFUSE)
	a := l.GetStatus().GetBound()[0]
	thief, err := net.Listen("tcp", net.JoinHostPort(a.GetIp(), portText(a)))
	if err != nil {
		t.Fatal(err)
	}
	d.unchanged(func() {
		_, err := d.listeners.ResumeListener(d.ctx, &pb.ResumeListenerRequest{Name: "web"})
		if meta := wantError(t, err, codes.FailedPrecondition, "ADDRESS_IN_USE"); meta["errno"] != "EADDRINUSE" {
			t.Errorf("%v", meta)
		}
	})
	if _, err := d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "web", ResumeAfter: durationpb.New(time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return slices.Contains(d.eventTypes(), "listener.resume_failed") })
	thief.Close()
	eventually(t, func() bool { return d.get("web").GetStatus().GetState() == isRunning })
	ping(t, a)
}

func (d *daemon) eventTypes() (types []string) {
	resp, err := d.events.ListEvents(d.ctx, &pb.ListEventsRequest{PageSize: 1000})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range resp.GetEvents() {
		types = append(types, e.GetType())
	}
	return types
}

// A drain lets connections finish, tells how far it is, and can be taken back.
func TestDrainKeepsSockets(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	c := ping(t, l.GetStatus().GetBound()[0])
	l = d.drain(time.Hour)
	d.wantState(l, wantsPaused, isDraining)
	if p := l.GetStatus().GetDrain(); p.GetInitialConnections() != 1 || p.GetRemainingConnections() != 1 || p.GetDeadline().AsTime().Before(time.Now()) {
		t.Errorf("%v", p)
	}
	exchange(t, c)
	late, err := net.Dial("tcp", c.RemoteAddr().String()) // it waits: the mode is hold
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	// Taken back: what was told to end goes on, who waits is served.
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	d.wantState(d.get("web"), wantsRunning, isRunning)
	exchange(t, c)
	exchange(t, late)
	d.drain(time.Hour)
	l = d.drain(0) // once more: sooner
	eventually(t, func() bool { l = d.get("web"); return l.GetStatus().GetState() == isPaused })
	if p := l.GetStatus().GetDrain(); p.GetInitialConnections() != 2 || p.GetRemainingConnections() != 0 || !strings.Contains(l.GetStatus().GetMessage(), "drained") {
		t.Errorf("%v", l.GetStatus())
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	d.wantState(d.resume(), wantsRunning, isRunning)
	if d.get("web").GetStatus().GetDrain() != nil {
		t.Error("a drain that was taken back is shown")
	}
	// Without connections it is over at once. A stop ends it.
	d.wantState(d.drain(time.Hour), wantsPaused, isPaused)
	d.halt("web")
	d.unchanged(func() {
		_, err := d.listeners.DrainListener(d.ctx, &pb.DrainListenerRequest{Name: "web"})
		wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
		_, err = d.listeners.PauseListener(d.ctx, &pb.PauseListenerRequest{Name: "web"})
		wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
		_, err = d.listeners.ResumeListener(d.ctx, &pb.ResumeListenerRequest{Name: "web"})
		wantError(t, err, codes.FailedPrecondition, "STATE_INVALID")
		_, err = d.listeners.DrainListener(d.ctx, &pb.DrainListenerRequest{Name: "web", Timeout: durationpb.New(-1)})
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "timeout")
	})
}

// reset_remaining ends what is left with RST.
func TestDrainReset(t *testing.T) {
	d := serve(t)
	l := d.createSpec("web", &pb.ListenerSpec{
		Listen: []string{"tcp://127.0.0.1:0"}, Handler: echoSpec().GetHandler(), Drain: &pb.DrainPolicy{ResetRemaining: true, Timeout: durationpb.New(0)},
	})
	c := ping(t, l.GetStatus().GetBound()[0])
	if _, err := d.listeners.DrainListener(d.ctx, &pb.DrainListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// In the lame-duck time new clients meet the pause mode and open connections
// are left alone. A stop can be taken back then, with the same sockets.
func TestLameDuck(t *testing.T) {
	d := serve(t)
	l := d.createSpec("web", &pb.ListenerSpec{
		Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: []byte("x")}}},
		Drain:     &pb.DrainPolicy{LameDuck: durationpb.New(time.Hour)},
		PauseMode: pb.PauseMode_PAUSE_MODE_REFUSE,
	})
	a := l.GetStatus().GetBound()[0]
	const get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	c, err := net.Dial("tcp", net.JoinHostPort(a.GetIp(), portText(a)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := func() {
		t.Helper()
		io.WriteString(c, get)
		buf := make([]byte, 1000)
		if n, err := c.Read(buf); err != nil || strings.Contains(string(buf[:n]), "close") {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}
	answers()
	for range 2 {
		resp, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", DrainTimeout: durationpb.New(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		d.wantState(resp.GetListener(), pb.ListenerSpec_DESIRED_STATE_STOPPED, isDraining)
		refused(t, a)
		answers()
		back, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		d.wantState(back.GetListener(), wantsRunning, isRunning)
		if back.GetListener().GetStatus().GetBound()[0].GetUri() != a.GetUri() {
			t.Errorf("%v", back)
		}
		answers()
	}
	resp, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web", DrainTimeout: durationpb.New(0)}) // at once
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	_ = resp
	// In a drain it is cut short when nobody is there.
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	d.wantState(d.drain(time.Minute), wantsPaused, isPaused)
}

// What only a new socket can have is given to one beside the old, if that is
// allowed; the plan says so before.
func TestUpdateRebinds(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	a := l.GetStatus().GetBound()[0]
	c := ping(t, a)
	r := &pb.UpdateListenerRequest{Listener: &pb.Listener{Name: "web", Spec: &pb.ListenerSpec{Options: map[string]*structpb.Value{
		"ip.free_bind": flag(true), "backlog": number(9), "tcp.no_delay": flag(false),
	}}}}
	d.unchanged(func() {
		_, err := d.listeners.UpdateListener(d.ctx, r)
		if meta := wantError(t, err, codes.FailedPrecondition, "OPTION_NEEDS_REBIND"); meta["option"] != "ip.free_bind" {
			t.Errorf("%v", meta)
		}
		r.AllowRebind, r.ValidateOnly = true, true
		resp, err := d.listeners.UpdateListener(d.ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		effects := map[string]pb.OptionSpec_Effect{}
		for _, c := range resp.GetChanges() {
			effects[c.GetPath()] = c.GetEffect()
			if c.GetNeedsRebind() != (c.GetPath() == "spec.options.ip.free_bind") {
				t.Errorf("%v", c)
			}
		}
		if len(effects) != 3 || effects["spec.options.ip.free_bind"] != pb.OptionSpec_EFFECT_REBIND || effects["spec.options.backlog"] != pb.OptionSpec_EFFECT_LIVE {
			t.Errorf("%v", effects)
		}
	})
	r.ValidateOnly = false
	resp, err := d.listeners.UpdateListener(d.ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetListener().GetStatus().GetBound()[0].GetUri(); got != a.GetUri() {
		t.Errorf("%v, was %v", got, a.GetUri())
	}
	exchange(t, c)
	ping(t, a)
	if v := d.inForce(t, "listeners/web", "ip.free_bind", "backlog"); !v["ip.free_bind"].GetBoolValue() || v["backlog"].GetNumberValue() != 9 {
		t.Errorf("%v", v)
	}
}

// What is told of a pause, a resume and a start is what happened, and who
// caused it: also of the first change after a restart.
func TestPauseEvents(t *testing.T) {
	dir := t.TempDir()
	d := serveState(t, dir)
	d.create("web", "unix://"+t.TempDir()+"/s", "udp://[::1]:0")
	d.stop()
	d = serveState(t, dir)
	_, seq := d.manager.Events()
	next := func(want string) {
		t.Helper()
		for {
			e, err := d.manager.NextEvent(d.ctx, seq)
			if err != nil {
				t.Fatal(err)
			}
			seq = e.Seq
			if !strings.HasPrefix(e.Cause.Actor, "uid:") {
				t.Errorf("%s by %s", e.Type, e.Cause.Actor)
			}
			if e.Type == want {
				return
			}
			if e.Type != "listener.updated" && e.Type != "listener.draining" && e.Type != "call.done" {
				t.Errorf("%s, want %s", e.Type, want)
			}
		}
	}
	for range 3 {
		d.pause(pb.PauseMode_PAUSE_MODE_REFUSE)
		next("listener.paused")
		d.pause(pb.PauseMode_PAUSE_MODE_HOLD) // with new sockets
		d.resume()
		next("listener.running")
	}
	d.halt("web")
	next("listener.stopped")
	if _, err := d.listeners.StartListener(d.ctx, &pb.StartListenerRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	next("listener.running")
}
