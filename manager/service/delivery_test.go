package service_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// givenUp makes a context that ends in the very time that an answer takes.
func givenUp(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(rand.IntN(600))*time.Microsecond)
}

// Whenever a client gives up Accept, each connection is accepted once: by a call
// that it did not give up, or by a later one.
func TestAcceptGivenUp(t *testing.T) {
	d := serve(t)
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	l := d.createSpec("rem", remoteSpec(&pb.RemoteHandler{}))
	for _, c := range []struct {
		name string
		dial func() net.Conn
	}{
		{server, func() net.Conn {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", addr.GetPort()))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}},
		{l.GetName(), func() net.Conn { return d.dialBound(l) }},
	} {
		const all = 300
		got := map[string]bool{}
		take := func(ctx context.Context) bool {
			resp, err := d.sockets.Accept(ctx, &pb.AcceptRequest{Name: c.name})
			if err != nil {
				return false
			}
			got[resp.GetSocket().GetRemote().GetUri()] = true
			d.close(resp.GetSocket().GetName())
			return true
		}
		for range all {
			peer := c.dial()
			defer peer.Close()
			ctx, cancel := givenUp(d.ctx)
			take(ctx)
			cancel()
		}
		early := len(got)
		ctx, cancel := context.WithTimeout(d.ctx, 5*time.Second)
		for more := true; more && len(got) < all; {
			more = take(ctx)
		}
		cancel()
		if len(got) != all {
			t.Errorf("%s: %d of %d connections, %d of them at once", c.name, len(got), all, early)
		}
	}
}

// Whenever a client gives up Recv, each byte comes once, in order.
func TestRecvGivenUp(t *testing.T) {
	d := serve(t)
	server, addr := d.bound(pb.Network_NETWORK_TCP, "tcp://127.0.0.1:0")
	peer, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", addr.GetPort()))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	name := d.accept(server)
	var want bytes.Buffer
	for i := range 1 << 18 {
		fmt.Fprintf(&want, "%d\n", i)
	}
	go func() {
		peer.Write(want.Bytes())
		peer.(*net.TCPConn).CloseWrite()
	}()
	var got bytes.Buffer
	failed := 0
	for {
		ctx, cancel := givenUp(d.ctx)
		if got.Len() == want.Len() || failed > 2000 {
			ctx = d.ctx
		}
		resp, err := d.sockets.Recv(ctx, &pb.RecvRequest{Name: name, MaxBytes: uint32(1 + rand.IntN(4000))})
		cancel()
		if err != nil {
			if failed++; d.ctx.Err() != nil {
				t.Fatal(err)
			}
			continue
		}
		if len(resp.GetPayload()) == 0 {
			break
		}
		got.Write(resp.GetPayload())
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) || failed == 0 {
		t.Errorf("%d bytes, want %d; %d calls were given up", got.Len(), want.Len(), failed)
	}
	d.close(server, name)
}
