package service_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// watcher reads a watch.
type watcher struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[pb.WatchListenersResponse]
	stop   context.CancelFunc
	token  string // of the last message
}

func (d *daemon) watch(r *pb.WatchListenersRequest) *watcher {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.ctx)
	d.t.Cleanup(cancel)
	stream, err := d.listeners.WatchListeners(ctx, r)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil { // it has begun
		d.t.Fatal(err)
	}
	return &watcher{t: d.t, stream: stream, stop: cancel}
}

// next returns a message as ADDED web running.
func (w *watcher) next() string {
	w.t.Helper()
	m, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	if m.GetResumeToken() == "" || m.GetTime() == nil {
		w.t.Errorf("no token or no time: %v", m)
	}
	w.token = m.GetResumeToken()
	kind := strings.TrimPrefix(m.GetType().String(), "TYPE_")
	if m.GetType() == pb.WatchListenersResponse_TYPE_SYNCED {
		return kind
	}
	state := strings.ToLower(strings.TrimPrefix(m.GetListener().GetStatus().GetState().String(), "STATE_"))
	return kind + " " + strings.TrimPrefix(m.GetListener().GetName(), "listeners/") + " " + state
}

// want reads until the messages that are wanted, and fails the test when
// another listener comes or goes.
func (w *watcher) want(messages ...string) {
	w.t.Helper()
	for _, want := range messages {
		for {
			got := w.next()
			if got == want {
				break
			}
			if strings.HasPrefix(got, "ADDED") || strings.HasPrefix(got, "DELETED") || got == "SYNCED" {
				w.t.Fatalf("%s, want %s", got, want)
			}
		}
	}
}

func (d *daemon) label(id, value string) {
	d.t.Helper()
	if _, err := d.listeners.UpdateListener(d.ctx, &pb.UpdateListenerRequest{
		Listener: &pb.Listener{Name: id, Labels: map[string]string{"tier": value}},
	}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) halt(id string) {
	d.t.Helper()
	if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: id, DrainTimeout: durationpb.New(0)}); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, func() bool { return d.get(id).GetStatus().GetState() == pb.ListenerStatus_STATE_STOPPED })
}

func (d *daemon) remove(id string) {
	d.t.Helper()
	if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: id, DrainTimeout: durationpb.New(0)}); err != nil {
		d.t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	d := serve(t)
	d.create("old")
	w := d.watch(&pb.WatchListenersRequest{SendInitial: true})
	w.want("ADDED old running", "SYNCED")
	d.create("web")
	w.want("ADDED web running")
	d.label("web", "edge")
	w.want("MODIFIED web running")
	token := w.token
	d.halt("web")
	w.want("STATUS web stopped")
	d.remove("web")
	w.want("DELETED web stopped")

	// From a token on nothing is missed, nothing is told twice.
	again := d.watch(&pb.WatchListenersRequest{ResumeToken: token})
	again.want("STATUS web stopped", "DELETED web stopped")
	if again.token != w.token {
		t.Errorf("%s, %s", again.token, w.token)
	}
	// Without a token it begins now; the answer of a list is a place to begin.
	list, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	d.create("api")
	listed := d.watch(&pb.WatchListenersRequest{ResumeToken: list.GetResumeToken()})
	listed.want("ADDED api running")
	w.want("ADDED api running")
	full := d.watch(&pb.WatchListenersRequest{SendInitial: true, View: pb.ListenerView_LISTENER_VIEW_FULL})
	if m, err := full.stream.Recv(); err != nil || len(m.GetListener().GetStatus().GetSockets()) != 1 {
		t.Errorf("%v, %v", m, err)
	}

	// It ends with the client, and with the daemon.
	again.stop()
	for err = nil; err == nil; {
		_, err = again.stream.Recv() // what was on its way
	}
}

// With a filter a listener that begins to match is new, and one that matches no
// longer is gone, however the watch began.
func TestWatchFilter(t *testing.T) {
	for _, begin := range []string{"initial", "now", "token"} {
		t.Run(begin, func(t *testing.T) {
			d := serve(t)
			for _, id := range []string{"api", "web"} {
				d.create(id)
				d.label(id, "edge")
			}
			d.create("other")
			list, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{})
			if err != nil {
				t.Fatal(err)
			}
			r := &pb.WatchListenersRequest{Filter: "labels.tier = edge"}
			switch begin {
			case "initial":
				r.SendInitial = true
			case "token":
				r.ResumeToken = list.GetResumeToken()
			}
			w := d.watch(r)
			if begin == "initial" {
				w.want("ADDED api running", "ADDED web running", "SYNCED")
			}
			d.label("web", "core") // it matches no longer
			w.want("DELETED web running")
			d.label("web", "back office")
			d.label("other", "edge") // it begins to
			if begin == "token" {    // what the client knew before nobody knows
				w.want("MODIFIED other running")
			} else {
				w.want("ADDED other running")
			}
			d.halt("api")
			w.want("STATUS api stopped")
			d.remove("api")
			w.want("DELETED api stopped")
			d.remove("web")
			d.create("web2")
			d.label("web2", "edge")
			w.want("ADDED web2 running")
		})
	}
}

// A daemon that ends tells its watchers.
func TestWatchEnd(t *testing.T) {
	d := serve(t)
	w := d.watch(&pb.WatchListenersRequest{SendInitial: true})
	w.want("SYNCED")
	if err := d.manager.Shutdown(d.ctx, 0); err != nil {
		t.Fatal(err)
	}
	_, err := w.stream.Recv()
	wantError(t, err, codes.Unavailable, "DAEMON_DRAINING")
}
