package service_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func TestConnections(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	c := ping(t, web)
	local := c.LocalAddr().String()
	byPeer, err := d.connections.GetConnection(d.ctx, &pb.GetConnectionRequest{Name: local})
	if err != nil {
		t.Fatal(err)
	}
	conn := byPeer.GetConnection()
	if conn.GetRemote().GetUri() != "tcp://"+local || conn.GetLocal().GetUri() != web.GetUri() || conn.GetListener() != "listeners/web" ||
		conn.GetState() != pb.Connection_STATE_OPEN || conn.GetReceivedBytes() != 4 || conn.GetSentBytes() != 4 || conn.GetReceivedMessages() != 1 ||
		conn.GetFd() <= 0 || conn.GetInode() == 0 || conn.GetTcpInfo().GetState() != pb.TcpState_TCP_STATE_ESTABLISHED ||
		conn.GetTcpInfo().GetBytesReceived() != 4 || conn.GetTcpInfo().GetCongestion() == "" || conn.GetQueue() == nil || conn.GetCreateTime() == nil {
		t.Errorf("%v", conn)
	}
	for _, name := range []string{conn.GetName(), conn.GetName()[len("connections/"):], "connections/" + local} {
		if got, err := d.connections.GetConnection(d.ctx, &pb.GetConnectionRequest{Name: name}); err != nil || got.GetConnection().GetName() != conn.GetName() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	list, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{})
	if err != nil || len(list.GetConnections()) != 1 || list.GetConnections()[0].GetTcpInfo() != nil || list.GetNextPageToken() != "" {
		t.Errorf("%v, %v", list, err)
	}
	list, err = d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{View: pb.ConnectionView_CONNECTION_VIEW_FULL})
	if err != nil || list.GetConnections()[0].GetTcpInfo() == nil {
		t.Errorf("%v, %v", list, err)
	}
	for filter, want := range map[string]int{
		`listener = "listeners/web"`: 1, `listener = "listeners/api"`: 0, `remote.ip = "127.0.0.1" AND local.port = ` + portText(web): 1,
		"state = open": 1, "state = closing": 0, "network = tcp": 1, "received_bytes > 4": 0, `name = "` + conn.GetName() + `"`: 1,
		`waits_for = readable`: 1, `create_time > "2020-01-01T00:00:00Z"`: 1,
	} {
		got, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: filter})
		if err != nil || len(got.GetConnections()) != want {
			t.Errorf("%s: %v, %v", filter, got, err)
		}
	}
	c.Close()
	eventually(t, func() bool { return d.get("web").GetStatus().GetActiveConnections() == 0 })
	_, err = d.connections.GetConnection(d.ctx, &pb.GetConnectionRequest{Name: conn.GetName()})
	wantError(t, err, codes.NotFound, "CONNECTION_NOT_FOUND")
}

func (d *daemon) closeConns(r *pb.CloseConnectionsRequest) *pb.CloseConnectionsResponse {
	d.t.Helper()
	stream, err := d.connections.CloseConnections(d.ctx, r)
	if err != nil {
		d.t.Fatal(err)
	}
	var last *pb.CloseConnectionsResponse
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if !last.GetDone() {
				d.t.Errorf("the last says it is not done: %v", last)
			}
			return last
		}
		if err != nil {
			d.t.Fatal(err)
		}
		last = p
	}
}

func TestCloseConnections(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	api := d.create("api").GetStatus().GetBound()[0]
	var ours, others []net.Conn
	for range 5 {
		ours, others = append(ours, ping(t, web)), append(others, ping(t, api))
	}
	if p := d.closeConns(&pb.CloseConnectionsRequest{Filter: `listener = "listeners/nobody"`}); p.GetMatched() != 0 || p.GetClosed() != 0 {
		t.Errorf("%v", p)
	}
	if p := d.closeConns(&pb.CloseConnectionsRequest{Filter: `listener = "listeners/web"`}); p.GetMatched() != 5 || p.GetClosed() != 5 || p.GetFailed() != 0 {
		t.Errorf("%v", p)
	}
	for _, c := range ours {
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%d, %v", n, err)
		}
	}
	for _, c := range others {
		exchange(t, c)
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetActiveConnections() == 0 }) // the last words are said
	if p := d.closeConns(&pb.CloseConnectionsRequest{All: true, Reset_: true}); p.GetMatched() != 5 || p.GetClosed() != 5 {
		t.Errorf("%v", p)
	}
	for _, c := range others {
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d, %v", n, err)
		}
	}
	for _, id := range []string{"web", "api"} {
		if l := d.get(id); l.GetStatus().GetActiveConnections() != 0 || l.GetStatus().GetState() != pb.ListenerStatus_STATE_RUNNING {
			t.Errorf("%v", l)
		}
	}
}

// With a grace connections may finish: those whose handler knows when they are
// at rest are ended then, others are waited for, and what is left is closed.
func TestCloseConnectionsGrace(t *testing.T) {
	d := serve(t)
	web := d.createSpec("web", &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{}}}})
	api := d.create("api").GetStatus().GetBound()[0]
	watch := d.watchConns(&pb.WatchConnectionsRequest{Filter: "state = closed"})
	begin := func(request string) net.Conn {
		c, err := net.Dial("tcp", endpointOf(web.GetStatus().GetBound()[0]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const half, rest = "GET / HTTP/1.1\r\nHost: h\r\n", "\r\n"
	idle, busy := begin(half+rest), begin(half)
	if _, err := idle.Read(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetReceivedBytes() == uint64(2*len(half)+len(rest)) })
	result := make(chan *pb.CloseConnectionsResponse)
	go func() {
		result <- d.closeConns(&pb.CloseConnectionsRequest{Filter: `listener = "listeners/web"`, Grace: durationpb.New(patience)})
	}()
	if _, err := io.ReadAll(idle); err != nil { // it is ended at once
		t.Error(err)
	}
	idle.Close()
	if m := watch.want(closed, idle); m.GetConnection().GetCloseReason() != "closed_by" {
		t.Errorf("%v", m)
	}
	if _, err := io.WriteString(busy, rest); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(busy); err != nil || !strings.Contains(string(answer), "\r\nConnection: close\r\n") {
		t.Errorf("%q, %v", answer, err)
	}
	busy.Close()
	watch.want(closed, busy)
	if p := <-result; p.GetMatched() != 2 || p.GetClosed() != 2 || p.GetFailed() != 0 {
		t.Errorf("%v", p)
	}

	stays, leaves := ping(t, api), ping(t, api)
	go func() {
		result <- d.closeConns(&pb.CloseConnectionsRequest{All: true, Grace: durationpb.New(time.Second), Reset_: true})
	}()
	eventually(t, func() bool { // both have been told
		list, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: "state = open AND close_reason = closed_by"})
		return err == nil && len(list.GetConnections()) == 2
	})
	exchange(t, stays)
	leaves.Close()
	watch.want(closed, leaves)
	watch.want(closed, stays)
	if p := <-result; p.GetMatched() != 2 || p.GetClosed() != 2 {
		t.Errorf("%v", p)
	}
	if n, err := stays.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d, %v", n, err)
	}
	for _, bad := range []time.Duration{-1, 2 * time.Hour} {
		stream, err := d.connections.CloseConnections(d.ctx, &pb.CloseConnectionsRequest{All: true, Grace: durationpb.New(bad)})
		if err == nil {
			_, err = stream.Recv()
		}
		wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "grace")
	}
}
