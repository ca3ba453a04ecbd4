package service_test

import (
	"maps"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

func TestDaemonInfo(t *testing.T) {
	d := serve(t)
	resp, err := d.daemon.GetDaemonInfo(d.ctx, &pb.GetDaemonInfoRequest{})
	if i := resp.GetInfo(); err != nil || i.GetInstanceId() != instance || i.GetPoller() != "epoll" || i.GetStore() != "memory" ||
		i.GetVersion() != "test" || i.GetKernelRelease() == "" || i.GetOpenFilesLimit() == 0 {
		t.Errorf("%v, %v", resp, err)
	}
	dir := t.TempDir()
	d.stop()
	d = serveState(t, dir)
	resp, err = d.daemon.GetDaemonInfo(d.ctx, &pb.GetDaemonInfoRequest{})
	if err != nil || resp.GetInfo().GetStore() != "file:"+dir+"/state.db" {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestLogLevels(t *testing.T) {
	d := serve(t)
	const warn, debug, off = pb.LogLevel_LOG_LEVEL_WARN, pb.LogLevel_LOG_LEVEL_DEBUG, pb.LogLevel_LOG_LEVEL_OFF
	want := map[string]pb.LogLevel{"sockmgr": warn, "sockmgr.loop": warn, "sockmgr.api": warn}
	check := func(got map[string]pb.LogLevel, err error) {
		t.Helper()
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	get := func() {
		t.Helper()
		resp, err := d.daemon.GetLogLevels(d.ctx, &pb.GetLogLevelsRequest{})
		check(resp.GetLevels(), err)
	}
	set := func(logger string, level pb.LogLevel) {
		t.Helper()
		resp, err := d.daemon.SetLogLevel(d.ctx, &pb.SetLogLevelRequest{Logger: logger, Level: level})
		check(resp.GetLevels(), err)
	}
	get()
	want["sockmgr.api"] = debug
	set("sockmgr.api", debug)
	want["sockmgr"] = off
	set("sockmgr", off) // itself, not those below it
	get()
	for level := pb.LogLevel_LOG_LEVEL_TRACE; level <= off; level++ {
		for name := range want {
			want[name] = level
		}
		set("", level)
		get()
	}
	_, err := d.daemon.SetLogLevel(d.ctx, &pb.SetLogLevelRequest{Logger: "", Level: 42})
	wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "level")
	get()
}

// ShutdownDaemon asks for an end, of this instance only, and answers first.
func TestShutdownDaemon(t *testing.T) {
	d := serve(t)
	for asked, want := range map[*durationpb.Duration]time.Duration{
		nil: manager.SpecDrain, durationpb.New(0): 0, durationpb.New(time.Minute): time.Minute,
	} {
		if _, err := d.daemon.ShutdownDaemon(d.ctx, &pb.ShutdownDaemonRequest{InstanceId: instance, DrainTimeout: asked}); err != nil {
			t.Error(err)
		}
		if got := <-d.ends; got != want {
			t.Errorf("asked for %v, want %v", got, want)
		}
	}
	_, err := d.daemon.ShutdownDaemon(d.ctx, &pb.ShutdownDaemonRequest{InstanceId: instance + "x"})
	wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "instance_id")
	select {
	case drain := <-d.ends:
		t.Errorf("the wrong instance ends: %v", drain)
	default:
	}
}

// While the daemon drains it answers, and changes nothing any more.
func TestDraining(t *testing.T) {
	d := serve(t)
	l := d.create("web")
	c := ping(t, l.GetStatus().GetBound()[0])
	ended := make(chan error, 1)
	go func() { ended <- d.manager.Shutdown(d.ctx, time.Hour) }()
	eventually(t, func() bool { return d.get("web").GetStatus().GetState() == pb.ListenerStatus_STATE_DRAINING })
	_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "new", Listener: &pb.Listener{Spec: echoSpec()}})
	wantError(t, err, codes.Unavailable, "DAEMON_DRAINING")
	_, err = d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "web"})
	wantError(t, err, codes.Unavailable, "DAEMON_DRAINING")
	if _, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{}); err != nil {
		t.Error(err)
	}
	exchange(t, c)
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_, err = d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{})
	wantError(t, err, codes.Unavailable, "DAEMON_DRAINING")
}
