package service_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// sortedConns pages through all connections and returns their ports, by the
// names that clients have.
func (d *daemon) sortedConns(size int32, filter, by string, names map[string]string) string {
	d.t.Helper()
	var got []string
	for token := ""; ; {
		resp, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{PageSize: size, PageToken: token, Filter: filter, OrderBy: by})
		if err != nil {
			d.t.Fatal(err)
		}
		if len(resp.GetConnections()) > int(size) {
			d.t.Errorf("%d on a page of %d", len(resp.GetConnections()), size)
		}
		for _, c := range resp.GetConnections() {
			got = append(got, names[c.GetRemote().GetUri()])
		}
		if token = resp.GetNextPageToken(); token == "" {
			return strings.Join(got, " ")
		}
	}
}

func TestConnectionOrder(t *testing.T) {
	d := serve(t)
	web := d.create("web").GetStatus().GetBound()[0]
	d.create("local", "unix://"+t.TempDir()+"/s")
	names := map[string]string{"": "unix"}
	ping(t, d.get("local").GetStatus().GetBound()[0])
	conns := map[string]net.Conn{}
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		c := ping(t, web)
		for range []int{3, 1, 4, 1, 5}[i] { // b and d are the same
			exchange(t, c)
		}
		conns[name], names["tcp://"+c.LocalAddr().String()] = c, name
	}
	list, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: "network = unix"})
	if err != nil || len(list.GetConnections()) != 1 {
		t.Fatal(list, err)
	}
	names[list.GetConnections()[0].GetRemote().GetUri()] = "unix"
	tcp := "network = tcp"
	for _, size := range []int32{1, 2, 3, 5, 1000} {
		for _, tt := range []struct{ filter, by, want string }{
			{tcp, "create_time", "a b c d e"},
			{tcp, "createTime desc", "e d c b a"},
			{tcp, "received_bytes desc, create_time", "e c a b d"},
			{tcp, " received_bytes  ,create_time desc ", "d b a c e"},
			{tcp, "tcp_info.bytes_received desc, create_time asc", "e c a b d"},
			{"", "tcp_info.bytes_received desc, create_time asc", "e c a b d unix"}, // it has none
			{"", "tcp_info.bytes_received, create_time", "b d a c e unix"},
			{"tcp_info.bytes_received > 10", "create_time", "a c e"},
			{tcp + " AND received_bytes = 8", "create_time desc", "d b"},
			{"", "network desc, peer.pid, create_time", "unix a b c d e"},
			{"received_bytes = 1", "name", ""},
		} {
			if got := d.sortedConns(size, tt.filter, tt.by, names); got != tt.want {
				t.Errorf("%d a page, %s by %s: %s, want %s", size, tt.filter, tt.by, got, tt.want)
			}
		}
	}
	// What is looked at is returned, and all of a page when all is asked for.
	resp, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: tcp, OrderBy: "tcp_info.rtt desc"})
	if err != nil || resp.GetConnections()[0].GetTcpInfo() == nil || resp.GetConnections()[0].GetQueue() != nil {
		t.Errorf("%v, %v", resp, err)
	}
	resp, err = d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{
		Filter: tcp, OrderBy: "queue.receive_bytes", View: pb.ConnectionView_CONNECTION_VIEW_FULL, PageSize: 1,
	})
	if err != nil || resp.GetConnections()[0].GetTcpInfo() == nil || resp.GetConnections()[0].GetInode() == 0 {
		t.Errorf("%v, %v", resp, err)
	}

	// Connections come and go between two pages: the rest goes on where it was.
	first, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: tcp, OrderBy: "create_time", PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"b", "c"} { // the last of this page, the first of the next
		conns[gone].Close()
		if _, err := io.Copy(io.Discard, conns[gone]); err == nil {
			t.Error("not closed")
		}
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetActiveConnections() == 3 })
	next, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{Filter: tcp, OrderBy: "create_time", PageSize: 2, PageToken: first.GetNextPageToken()})
	if err != nil || len(next.GetConnections()) != 2 || names[next.GetConnections()[0].GetRemote().GetUri()] != "d" || next.GetNextPageToken() != "" {
		t.Errorf("%v, %v", next, err)
	}

	// A token is good for its order only.
	for _, r := range []*pb.ListConnectionsRequest{
		{Filter: tcp, PageToken: first.GetNextPageToken()},
		{Filter: tcp, PageToken: first.GetNextPageToken(), OrderBy: "create_time desc"},
		{Filter: tcp, PageToken: first.GetNextPageToken() + "A", OrderBy: "create_time"},
	} {
		_, err := d.connections.ListConnections(d.ctx, r)
		wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	}
	for by, want := range map[string]string{
		"rtt": "did you mean tcp_info.rtt?", "colour": "has no field colour", "waits_for": "is a list", "remote": "has no order", "fd down": "is not a field",
		"fd,": "is not a field", ",": "is not a field", "fd desc desc": "is not a field", "tcp_info.rtt.seconds": "has no fields",
		strings.Repeat("fd,", 20) + "fd": "too long",
	} {
		_, err := d.connections.ListConnections(d.ctx, &pb.ListConnectionsRequest{OrderBy: by})
		wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", by, err)
		}
	}
}

func TestListenerOrder(t *testing.T) {
	d := serve(t)
	for i, id := range []string{"c", "a", "d", "b"} {
		l := &pb.Listener{Spec: echoSpec(), Labels: map[string]string{"tier": []string{"x", "y"}[i%2]}}
		made, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: id, Listener: l})
		if err != nil {
			t.Fatal(err)
		}
		for range i % 3 {
			ping(t, made.GetListener().GetStatus().GetBound()[0])
		}
	}
	for by, want := range map[string]string{
		"name": "a b c d", "name desc": "d c b a", "create_time": "c a d b",
		"status.activeConnections desc": "d a b c", "status.active_connections": "b c a d", "labels.tier desc, name": "a b c d", "labels.tier": "c d a b",
		"labels.colour": "a b c d", "generation": "a b c d",
	} {
		for _, size := range []int32{1, 3, 10} {
			var got []string
			for token := ""; ; {
				resp, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{PageSize: size, PageToken: token, OrderBy: by})
				if err != nil {
					t.Fatal(err)
				}
				if resp.GetTotalSize() != 4 {
					t.Errorf("%d in all", resp.GetTotalSize())
				}
				for _, l := range resp.GetListeners() {
					got = append(got, strings.TrimPrefix(l.GetName(), "listeners/"))
				}
				if token = resp.GetNextPageToken(); token == "" {
					break
				}
			}
			if !slices.Equal(got, strings.Fields(want)) {
				t.Errorf("by %s: %v, want %s", by, got, want)
			}
		}
	}
	_, err := d.listeners.ListListeners(d.ctx, &pb.ListListenersRequest{OrderBy: "status.bound"})
	wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
}
