package cli

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func TestStop(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"), listener("api"))
	f.onSync(func(f *fake) {
		f.stopped("listeners/api")
		f.stopped("listeners/web")
	})
	got := f.run(t, "stop", "web", "api", "listeners/web", "--drain", "30s", "-o", "name")
	if got.exit != 0 || len(got.stdout) != len("web\napi\n") || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	same(t, "requests", f.requests(), `
StopListener {"name":"listeners/web","drainTimeout":"30s"}
StopListener {"name":"listeners/api","drainTimeout":"30s"}
WatchListeners {"sendInitial":true}`)
}

func TestStopWords(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"))
	want(t, f.run(t, "stop", "web", "--now", "--no-wait"), 0, "web draining\n", "")
	same(t, "requests", f.requests(), `StopListener {"name":"listeners/web","drainTimeout":"0s"}`)
	want(t, f.run(t, "stop", "nix"), 4, "", "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
	f.onSync(func(f *fake) { f.stopped("listeners/web") })
	want(t, f.run(t, "stop", "nix", "web"), 10, "web stopped\n", "Error: no listener is called nix\n  reason LISTENER_NOT_FOUND\n")
}

func TestStopJSON(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, &pb.Listener{Name: "listeners/web", Spec: &pb.ListenerSpec{}, Status: &pb.ListenerStatus{}})
	f.onSync(func(f *fake) { f.stopped("listeners/web") })
	want(t, f.run(t, "stop", "web", "-o", "yaml"), 0, `
listeners:
  - name: listeners/web
    uid: ""
    labels: {}
    annotations: {}
    spec:
      desiredState: stopped
    status:
      state: stopped
      message: ""
      bound: []
      sockets: []
      activeConnections: 0
      acceptedTotal: 0
      rejectedTotal: 0
      acceptQueue: 0
      acceptQueueLimit: 0
      dropsTotal: 0
      receivedBytes: 0
      sentBytes: 0
      upstreams: []
      faults: []
    manager: ""
    generation: 0
    revision: 0
    etag: ""
`, "")
}

func TestStopTakesTooLong(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"))
	f.listeners[0].Status.ActiveConnections = 3
	want(t, f.run(t, "stop", "web", "--timeout", "500ms"), 9, "",
		"Error: web: time ran out while it was draining, 3 connections open\n")
}

func TestStopMeetsOthers(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"), listener("api"))
	f.onSync(func(f *fake) {
		f.change(func() { f.listeners[0].Spec.DesiredState = pb.ListenerSpec_DESIRED_STATE_RUNNING })
		f.remove("listeners/api")
	})
	want(t, f.run(t, "stop", "web"), 6, "", "Error: web: someone started it again\n")
	f.change(func() { f.listeners = append(f.listeners, listener("api")) })
	f.onSync(func(f *fake) { f.remove("listeners/api") })
	want(t, f.run(t, "stop", "api"), 4, "", "Error: api: no such listener\n  reason LISTENER_NOT_FOUND\n")
}

func TestRm(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"), listener("api"))
	f.onSync(func(f *fake) { f.remove("listeners/web") })
	want(t, f.run(t, "rm", "web", "--now"), 0, "web removed\n", "")
	same(t, "requests", f.requests(), `
DeleteListener {"name":"listeners/web","drainTimeout":"0s"}
WatchListeners {"sendInitial":true}`)
	want(t, f.run(t, "rm", "web"), 4, "", "Error: no listener is called web\n  reason LISTENER_NOT_FOUND\n")
	want(t, f.run(t, "rm", "web", "--ignore-missing"), 0, "", "")
	f.onSync(func(f *fake) { // another takes the name
		f.change(func() { f.listeners[0].Uid = "other" })
	})
	want(t, f.run(t, "rm", "api"), 0, "api removed\n", "")
	want(t, f.run(t, "rm", "api", "--no-wait", "-o", "name"), 0, "api\n", "")
}

func TestWait(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"), listener("api"))
	want(t, f.run(t, "wait", "web", "api", "--for", "running"), 0, "web running\napi running\n", "")
	want(t, f.run(t, "wait", "nix", "--for", "running"), 4, "", "Error: nix: no such listener\n  reason LISTENER_NOT_FOUND\n")
	want(t, f.run(t, "wait", "nix", "--for", "deleted"), 0, "nix deleted\n", "")
	f.onSync(func(f *fake) { f.stopped("listeners/web") })
	want(t, f.run(t, "wait", "web", "--for", "stopped"), 0, "web stopped\n", "")
	f.onSync(func(f *fake) { f.remove("listeners/web") })
	want(t, f.run(t, "wait", "web", "--for", "deleted"), 0, "web deleted\n", "")
	f.change(func() {
		f.listeners[0].Status.State = pb.ListenerStatus_STATE_FAILED
		f.listeners[0].Status.Message = "tcp://:80 is in use"
	})
	want(t, f.run(t, "wait", "api", "--for", "running", "--timeout", "500ms"), 9, "",
		"Error: api: time ran out while it was failed, tcp://:80 is in use\n")
}

func TestWaitLimited(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"))
	f.listeners[0].Status.State = pb.ListenerStatus_STATE_LIMITED
	want(t, f.run(t, "wait", "web", "--for", "running"), 0, "web running\n", "")
}

func TestWaitLosesDaemon(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"))
	f.onSync(func(f *fake) { go f.server.Stop() })
	got := f.run(t, "wait", "web", "--for", "stopped")
	if got.exit != 8 {
		t.Errorf("%+v", got)
	}
}

func TestWaitFallsBehind(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"))
	f.errs["WatchListeners"] = refused(codes.OutOfRange, "REVISION_COMPACTED", "the revision is gone", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := f.world()
	w.ctx = ctx
	done := make(chan result)
	go func() { done <- w.run(t, "wait", "web", "--for", "running") }()
	f.change(func() { delete(f.errs, "WatchListeners") })
	want(t, <-done, 0, "web running\n", "")
}

func TestInterrupted(t *testing.T) {
	f := newFake(t)
	f.listeners = append(f.listeners, listener("web"))
	ctx, cancel := context.WithCancel(t.Context())
	w := f.world()
	w.ctx = ctx
	f.onSync(func(*fake) { cancel() })
	want(t, w.run(t, "wait", "web", "--for", "stopped"), 130, "", "Error: interrupted\n")
	want(t, w.run(t, "ls", "web"), 130, "", "Error: interrupted\n")
	want(t, w.run(t, "stop", "web"), 130, "", "Error: interrupted\n")
}
