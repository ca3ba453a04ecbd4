package service_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

// connWatcher reads a watch of connections.
type connWatcher struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[pb.WatchConnectionsResponse]
	stop   context.CancelFunc
}

func (d *daemon) watchConns(r *pb.WatchConnectionsRequest) *connWatcher {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.ctx)
	d.t.Cleanup(cancel)
	stream, err := d.connections.WatchConnections(ctx, r)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil { // it has begun
		d.t.Fatal(err)
	}
	return &connWatcher{d.t, stream, cancel}
}

// want reads the next message, which must be of the kind and of the client.
func (w *connWatcher) want(kind pb.WatchConnectionsResponse_Type, client net.Conn) *pb.WatchConnectionsResponse {
	w.t.Helper()
	m, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	remote := ""
	if client != nil {
		remote = "tcp://" + client.LocalAddr().String()
	}
	if m.GetType() != kind || m.GetConnection().GetRemote().GetUri() != remote || m.GetTime() == nil {
		w.t.Errorf("want %v of %s, got %v", kind, remote, m)
	}
	return m
}

const (
	opened  = pb.WatchConnectionsResponse_TYPE_OPENED
	updated = pb.WatchConnectionsResponse_TYPE_UPDATED
	closed  = pb.WatchConnectionsResponse_TYPE_CLOSED
	synced  = pb.WatchConnectionsResponse_TYPE_SYNCED
)

func TestWatchConnections(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	api := d.create("api").GetStatus().GetBound()[0]
	first := ping(t, web)
	ping(t, api)
	w := d.watchConns(&pb.WatchConnectionsRequest{Filter: `listener = "listeners/web"`, SendInitial: true})
	w.want(opened, first)
	w.want(synced, nil)

	second := ping(t, web)
	m := w.want(opened, second)
	if c := m.GetConnection(); c.GetState() != pb.Connection_STATE_OPEN || c.GetReceivedBytes() != 0 || c.GetTcpInfo() != nil || m.GetDropped() != 0 {
		t.Errorf("%v", m)
	}
	second.Close()
	m = w.want(closed, second)
	if c := m.GetConnection(); c.GetState() != pb.Connection_STATE_CLOSED || c.GetCloseReason() != "eof" || c.GetReceivedBytes() != 4 || c.GetSentBytes() != 4 ||
		c.GetTcpInfo().GetBytesReceived() != 5 /* FIN counts */ || c.GetTcpInfo().GetRtt().AsDuration() <= 0 || m.GetTime().AsTime().Before(c.GetCreateTime().AsTime()) {
		t.Errorf("%v", m)
	}
	d.closeConns(&pb.CloseConnectionsRequest{All: true, Reset_: true})
	if m := w.want(closed, first); m.GetConnection().GetCloseReason() != "closed_by" {
		t.Errorf("%v", m)
	}
	if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: "web", DrainTimeout: durationpb.New(0)}); err != nil {
		t.Fatal(err)
	}

	// What a filter asks for may be known at the end only.
	resets := d.watchConns(&pb.WatchConnectionsRequest{Filter: "close_reason = reset"})
	ping(t, api).Close()
	third := ping(t, api).(*net.TCPConn)
	third.SetLinger(0)
	third.Close()
	resets.want(closed, third)

	for _, r := range []*pb.WatchConnectionsRequest{
		{UpdateInterval: durationpb.New(time.Millisecond)}, {UpdateInterval: durationpb.New(2 * time.Hour)}, {UpdateInterval: &durationpb.Duration{Nanos: -1}},
	} {
		stream, err := d.connections.WatchConnections(d.ctx, r)
		if err == nil {
			_, err = stream.Recv()
		}
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "update_interval")
	}
	stream, err := d.connections.WatchConnections(d.ctx, &pb.WatchConnectionsRequest{Filter: "sate = open"})
	if err == nil {
		_, err = stream.Recv()
	}
	wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
	if !strings.Contains(err.Error(), "did you mean state?") {
		t.Error(err)
	}

	d.stop()
	if m, err := resets.stream.Recv(); err == nil {
		t.Errorf("after the end: %v", m)
	}
}

// Updates tell what has changed, and nothing of what has not.
func TestWatchConnectionsUpdates(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	ping(t, web) // does nothing more
	moves := ping(t, web)
	w := d.watchConns(&pb.WatchConnectionsRequest{
		Filter: `remote.port = ` + moves.LocalAddr().String()[len("127.0.0.1:"):], UpdateInterval: durationpb.New(100 * time.Millisecond),
	})
	for n := uint64(8); n <= 16; n += 4 {
		exchange(t, moves)
		var m *pb.WatchConnectionsResponse
		for m.GetConnection().GetReceivedBytes() < n { // what moved in the turn of the last update may be told twice
			m = w.want(updated, moves)
		}
		if m.GetConnection().GetReceivedBytes() != n || m.GetConnection().GetSentBytes() != n {
			t.Errorf("%v", m)
		}
	}

	// The end of one half moves no byte, but is a change.
	big := d.createSpec("big", &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Discard{Discard: &pb.DiscardHandler{}}}})
	all := d.watchConns(&pb.WatchConnectionsRequest{Filter: `listener = "listeners/big"`, UpdateInterval: durationpb.New(100 * time.Millisecond)})
	half, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", portText(big.GetStatus().GetBound()[0])))
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	all.want(opened, half)
	half.Close()
	all.want(closed, half)
}

// Over its rate a watcher is told how many it has missed.
func TestWatchConnectionsRate(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	began := time.Now()
	w := d.watchConns(&pb.WatchConnectionsRequest{MaxRate: 3})
	to := net.JoinHostPort("127.0.0.1", portText(web))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if c, err := net.Dial("tcp", to); err == nil {
				c.Close()
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	got := 0
	for dropped := uint64(0); dropped == 0 || got < 5; got++ {
		m, err := w.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got > 0 && got%3 == 0 && m.GetDropped() == 0 {
			t.Errorf("the first of a second: %v", m)
		}
		dropped += m.GetDropped()
	}
	if d := time.Since(began); got > 3*(1+int(d/time.Second)) {
		t.Errorf("%d events in %v", got, d)
	}
}

// Who does not read loses the oldest, is told how many, and goes on. The loop
// does not wait: those who connect see no difference.
func TestWatchConnectionsSlow(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	w, err := d.manager.WatchConns(d.ctx)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5000 // twice as many events; 8192 are kept
	for range n {
		ping(t, web).(*net.TCPConn).Close()
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetActiveConnections() == 0 })
	e, err := w.Next(d.ctx)
	if err != nil || e.Dropped != 2*n-8192 {
		t.Errorf("%d dropped, %v", e.Dropped, err)
	}
	for range 8191 {
		if e, err = w.Next(d.ctx); err != nil || e.Dropped != 0 {
			t.Fatal(e.Dropped, err)
		}
	}
	if e.Conn.State != listeners.ConnClosed || w.Waiting() {
		t.Errorf("%+v", e)
	}
	w.Close()
}
