package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func remoteSpec(h *pb.RemoteHandler) *pb.ListenerSpec {
	return &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0"}, Handler: &pb.Handler{Kind: &pb.Handler_Remote{Remote: h}}}
}

// dialBound connects to a listener.
func (d *daemon) dialBound(l *pb.Listener) net.Conn {
	d.t.Helper()
	a := l.GetStatus().GetBound()[0]
	c, err := net.Dial("tcp", net.JoinHostPort(a.GetIp(), portText(a)))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	return c
}

// A connection of a listener is used as a socket, and stays its connection.
func TestRemote(t *testing.T) {
	d := serve(t)
	l := d.createSpec("web", remoteSpec(&pb.RemoteHandler{}))
	c := d.dialBound(l)
	io.WriteString(c, "hello")
	resp, err := d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: "listeners/web"})
	if err != nil {
		t.Fatal(err)
	}
	s := resp.GetSocket()
	if s.GetListener() != "listeners/web" || s.GetRole() != pb.Socket_ROLE_ACCEPTED || s.GetRemote().GetUri() != "tcp://"+c.LocalAddr().String() || s.GetConnection() == "" {
		t.Errorf("%v", s)
	}
	if got := d.recv(s.GetName()); got != "hello" {
		t.Errorf("%q", got)
	}
	d.send(s.GetName(), "world")
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "world" {
		t.Errorf("%q %v", got, err)
	}
	conn, err := d.connections.GetConnection(d.ctx, &pb.GetConnectionRequest{Name: s.GetConnection()})
	if err != nil || conn.GetConnection().GetReceivedBytes() != 5 || conn.GetConnection().GetSentBytes() != 5 {
		t.Errorf("%v %v", conn, err)
	}
	all, err := d.sockets.ListSockets(d.ctx, &pb.ListSocketsRequest{Filter: `connection:"connections/"`})
	if err == nil {
		all, err = d.sockets.ListSockets(d.ctx, &pb.ListSocketsRequest{Filter: fmt.Sprintf("name = %q", s.GetName())})
	}
	if err != nil || len(all.GetSockets()) != 1 || all.GetSockets()[0].GetOwner() == "" {
		t.Errorf("%v %v", all, err)
	}
	// It can be waited for, and ended, as any other.
	ready, err := d.sockets.Poll(d.ctx, &pb.PollRequest{Readable: []string{s.GetName()}, Timeout: durationpb.New(0)})
	if err != nil || len(ready.GetReadable()) != 0 {
		t.Error(ready, err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := d.sockets.Recv(d.ctx, &pb.RecvRequest{Name: s.GetName()})
		waits <- err
	}()
	eventually(t, func() bool {
		resp, err := d.sockets.GetSocket(d.ctx, &pb.GetSocketRequest{Name: s.GetName()})
		return err == nil && len(resp.GetSocket().GetWaitsFor()) > 0
	})
	if d.get("web").GetStatus().GetActiveConnections() != 1 {
		t.Error("it is not counted")
	}
	d.closeAll("web")
	wantErrno(t, <-waits, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9")
	_, err = d.sockets.Recv(d.ctx, &pb.RecvRequest{Name: s.GetName()})
	wantErrno(t, err, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9")

	// The client's close is that of the connection.
	c = d.dialBound(l)
	d.close(d.accept("listeners/web"))
	if _, err := c.Read(got); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetActiveConnections() == 0 })
}

// closeAll closes the connections of a listener.
func (d *daemon) closeAll(id string) {
	d.t.Helper()
	stream, err := d.connections.CloseConnections(d.ctx, &pb.CloseConnectionsRequest{Filter: fmt.Sprintf("listener = %q", "listeners/"+id)})
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		d.t.Error(err)
	}
}

// Callers are served in order, those who are gone lose no connection, and all
// are told when there will be none.
func TestRemoteCallers(t *testing.T) {
	d := serve(t)
	l := d.createSpec("web", remoteSpec(&pb.RemoteHandler{}))
	for range 3 {
		ctx, cancel := context.WithTimeout(d.ctx, 5*time.Millisecond)
		if _, err := d.sockets.Accept(ctx, &pb.AcceptRequest{Name: "listeners/web"}); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
		cancel()
	}
	const n = 20
	got, failed := make(chan string, n), make(chan error, n)
	for range n {
		go func() {
			resp, err := d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: "listeners/web"})
			if err != nil {
				failed <- err
				return
			}
			got <- resp.GetSocket().GetRemote().GetUri()
		}()
	}
	for range n / 2 {
		c := d.dialBound(l)
		if remote := <-got; remote != "tcp://"+c.LocalAddr().String() {
			t.Errorf("%s, want %v", remote, c.LocalAddr())
		}
	}
	if _, err := d.listeners.StopListener(d.ctx, &pb.StopListenerRequest{Name: "listeners/web"}); err != nil {
		t.Fatal(err)
	}
	for range n / 2 {
		wantErrno(t, <-failed, codes.FailedPrecondition, "STATE_INVALID", "EINVAL", "22")
	}
	_, err := d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: "listeners/web"})
	wantErrno(t, err, codes.FailedPrecondition, "STATE_INVALID", "EINVAL", "22")
	d.create("echo")
	_, err = d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: "listeners/echo"})
	wantErrno(t, err, codes.FailedPrecondition, "STATE_INVALID", "EINVAL", "22")
	_, err = d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: "listeners/none"})
	wantError(t, err, codes.NotFound, "LISTENER_NOT_FOUND")
}

// So many wait here, the others in the kernel; who waits too long is closed, the
// first first.
func TestRemotePending(t *testing.T) {
	d := serve(t)
	l := d.createSpec("web", remoteSpec(&pb.RemoteHandler{MaxPending: 2}))
	var remotes []string
	for range 5 {
		remotes = append(remotes, "tcp://"+d.dialBound(l).LocalAddr().String())
	}
	eventually(t, func() bool {
		st := d.get("web").GetStatus()
		return st.GetState() == pb.ListenerStatus_STATE_LIMITED && st.GetActiveConnections() == 2 && len(st.GetSockets()) == 1 && st.GetSockets()[0].GetQueue().GetAcceptQueue() == 3
	})
	var got []string
	for range remotes {
		resp, err := d.sockets.Accept(d.ctx, &pb.AcceptRequest{Name: "listeners/web"})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, resp.GetSocket().GetRemote().GetUri())
	}
	if !slices.Equal(got, remotes) {
		t.Errorf("%v, want %v", got, remotes)
	}
	eventually(t, func() bool { return d.get("web").GetStatus().GetState() == pb.ListenerStatus_STATE_RUNNING })

	short := d.createSpec("short", remoteSpec(&pb.RemoteHandler{AttachTimeout: durationpb.New(20 * time.Millisecond)}))
	for range 3 {
		if _, err := d.dialBound(short).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "bad", Listener: &pb.Listener{Spec: remoteSpec(&pb.RemoteHandler{AttachTimeout: durationpb.New(-1)})}})
	wantError(t, err, codes.InvalidArgument, "SPEC_INVALID", "spec.handler.remote.attach_timeout")
}
