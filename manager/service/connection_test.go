package service_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

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
