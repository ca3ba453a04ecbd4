package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// streamed is a stream of bytes to a peer outside of the daemon.
func (d *daemon) streamed(ctx context.Context) (grpc.BidiStreamingClient[pb.StreamRequest, pb.StreamResponse], *net.TCPConn, string) {
	d.t.Helper()
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", addr.GetPort()))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	name := d.accept(server)
	d.close(server)
	stream, err := d.sockets.Stream(ctx)
	if err == nil {
		err = stream.Send(&pb.StreamRequest{Name: name})
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return stream, c.(*net.TCPConn), name
}

// Bytes go both ways, and each way ends by itself.
func TestStream(t *testing.T) {
	d := serve(t)
	stream, peer, name := d.streamed(d.ctx)
	peer.SetDeadline(time.Now().Add(patience))
	body := bytes.Repeat([]byte("0123456789"), 300_000)
	go func() {
		for chunk := body; len(chunk) > 0; chunk = chunk[min(len(chunk), 100_000):] {
			stream.Send(&pb.StreamRequest{Payload: chunk[:min(len(chunk), 100_000)]})
		}
		stream.Send(&pb.StreamRequest{HalfClose: true})
	}()
	got, err := io.ReadAll(peer) // to the end: the half-close has come
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d of %d bytes, %v", len(got), len(body), err)
	}
	go func() {
		peer.Write(body)
		peer.CloseWrite()
	}()
	var back []byte
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, resp.GetPayload()...)
		if resp.GetHalfClose() {
			break
		}
	}
	if !bytes.Equal(back, body) {
		t.Errorf("%d of %d bytes back", len(back), len(body))
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("both have ended: %v", err)
	}
	d.close(name)
}

// A client that does not read closes the peer's window; what was on its way when
// it leaves is received again, all that gRPC had not been given.
func TestStreamBackPressure(t *testing.T) {
	d := serve(t)
	ctx, cancel := context.WithCancel(d.ctx)
	stream, peer, name := d.streamed(ctx)
	peer.SetWriteBuffer(64 << 10)
	sent := 0
	for blocked := false; !blocked; {
		peer.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := peer.Write(make([]byte, 64<<10))
		sent += n
		if blocked = err != nil; sent > 64<<20 {
			t.Fatal("the peer can send for ever")
		}
	}
	resp, err := d.sockets.GetSocket(d.ctx, &pb.GetSocketRequest{Name: name})
	if err != nil || resp.GetSocket().GetQueue().GetReceiveBytes() == 0 || resp.GetSocket().GetQueue().GetUserReceiveBytes() > 1<<20 {
		t.Errorf("%v %v", resp, err)
	}
	go func() {
		peer.SetWriteDeadline(time.Now().Add(patience))
		peer.Write(make([]byte, 1<<20))
		peer.CloseWrite()
	}()
	got := 0
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got += len(resp.GetPayload()); resp.GetHalfClose() {
			break
		}
	}
	if got != sent+1<<20 {
		t.Errorf("%d bytes, of %d", got, sent+1<<20)
	}
	cancel()
	d.close(name)
}

// The error that ends a stream has the kernel's errno. The client's end does not
// end the socket.
func TestStreamEnds(t *testing.T) {
	d := serve(t)
	stream, peer, name := d.streamed(d.ctx)
	peer.SetLinger(0)
	peer.Close()
	_, err := stream.Recv()
	wantErrno(t, err, codes.FailedPrecondition, "SOCKET_CALL_FAILED", "ECONNRESET", "104")
	d.close(name)

	ctx, cancel := context.WithCancel(d.ctx)
	_, peer, name = d.streamed(ctx)
	eventually(t, func() bool {
		resp, err := d.sockets.GetSocket(d.ctx, &pb.GetSocketRequest{Name: name})
		return err == nil && len(resp.GetSocket().GetWaitsFor()) == 1
	})
	cancel()
	eventually(t, func() bool {
		resp, err := d.sockets.GetSocket(d.ctx, &pb.GetSocketRequest{Name: name})
		return err == nil && len(resp.GetSocket().GetWaitsFor()) == 0
	})
	io.WriteString(peer, "still there")
	if got := d.recv(name); got != "still there" {
		t.Errorf("%q", got)
	}
	d.close(name)

	stream, err = d.sockets.Stream(d.ctx)
	if err == nil {
		err = stream.Send(&pb.StreamRequest{Name: name})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	wantErrno(t, err, codes.NotFound, "SOCKET_NOT_FOUND", "EBADF", "9")
}
