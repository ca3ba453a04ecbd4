package service_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A request of 4 MiB is refused, and the connection that sent it goes on.
func TestLargeRequest(t *testing.T) {
	d := serve(t)
	d.create("there")
	d.unchanged(func() {
		body := &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: make([]byte, 4<<20)}}}
		_, err := d.listeners.CreateListener(d.ctx, &pb.CreateListenerRequest{ListenerId: "big", Listener: &pb.Listener{Spec: withHandler(body, "tcp://127.0.0.1:0")}})
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
			t.Errorf("%v", err)
		}
	})
	// As much as it takes is taken, kept and returned.
	body := &pb.Handler{Kind: &pb.Handler_Http{Http: &pb.HttpHandler{Body: make([]byte, 1<<20-500)}}}
	d.createSpec("big", withHandler(body, "tcp://127.0.0.1:0"))
	if got := d.get("big").GetSpec().GetHandler().GetHttp().GetBody(); len(got) != 1<<20-500 {
		t.Errorf("%d bytes", len(got))
	}
}

// Whatever is written to the control socket that is not gRPC harms nobody.
func TestGarbage(t *testing.T) {
	d := serve(t)
	d.create("there")
	d.unchanged(func() {
		for _, garbage := range []string{"GET / HTTP/1.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 5000), strings.Repeat("\x00", 100_000)} {
			c, err := net.Dial("unix", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, garbage) // may find it closed
			c.(*net.UnixConn).CloseWrite()
			c.SetDeadline(time.Now().Add(patience))
			io.Copy(io.Discard, c) // until it is
			c.Close()
		}
	})
}

// Clients that go in the middle of a call, by a deadline or with their
// connection: each call has been made as a whole or not at all.
func TestClientGoes(t *testing.T) {
	d := serve(t)
	const calls = 300
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(d.ctx, time.Duration(rand.IntN(5000))*time.Microsecond)
			defer cancel()
			id := fmt.Sprintf("l%d", i%10)
			switch rand.IntN(4) {
			case 0, 1:
				d.listeners.CreateListener(ctx, &pb.CreateListenerRequest{ListenerId: id, Listener: &pb.Listener{Spec: echoSpec("tcp://127.0.0.1:0", "udp://127.0.0.1:0")}})
			case 2:
				d.listeners.UpdateListener(ctx, &pb.UpdateListenerRequest{
					Listener:    &pb.Listener{Name: id, Spec: &pb.ListenerSpec{Listen: []string{"tcp://127.0.0.1:0", fmt.Sprintf("tcp://127.0.0.%d:0", 2+rand.IntN(5))}}},
					AllowRebind: true,
				})
			default:
				d.listeners.DeleteListener(ctx, &pb.DeleteListenerRequest{Name: id, DrainTimeout: durationpb.New(0)})
			}
		})
	}
	wg.Wait()
	d.conn.Close() // with whatever is under way
	d.conn = d.dial()
	// A call that had begun is made to its end, whenever that is: what is listed may
	// be gone in a moment, and others may come.
	eventually(t, func() bool { return consistent(d) })
	eventually(t, func() bool {
		all := d.list()
		for _, l := range all {
			if _, err := d.listeners.DeleteListener(d.ctx, &pb.DeleteListenerRequest{Name: l.GetName(), DrainTimeout: durationpb.New(0)}); err != nil && status.Code(err) != codes.NotFound {
				t.Fatal(err)
			}
		}
		return len(all) == 0
	})
}

// consistent reports whether every listener is bound to just what it wants, and answers there.
func consistent(d *daemon) bool {
	for _, l := range d.list() {
		if l.GetStatus().GetState() != pb.ListenerStatus_STATE_RUNNING || len(l.GetStatus().GetBound()) != len(l.GetSpec().GetListen()) {
			return false
		}
		c, err := net.Dial("tcp", strings.TrimPrefix(l.GetStatus().GetBound()[0].GetUri(), "tcp://"))
		if err != nil {
			return false
		}
		echoes := c.SetDeadline(time.Now().Add(patience)) == nil && exchanged(c) == nil
		c.Close()
		if !echoes {
			return false
		}
	}
	return true
}

// A client that goes while many wait for one answer takes nobody along: the next
// makes the call.
func TestFirstClientGoes(t *testing.T) {
	d := serve(t)
	for i := range 20 {
		id := fmt.Sprintf("l%d", i)
		r := &pb.CreateListenerRequest{ListenerId: id, Listener: &pb.Listener{Spec: echoSpec()}, RequestId: uuid(i)}
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(d.ctx, time.Duration(rand.IntN(1000))*time.Microsecond)
			defer cancel()
			d.listeners.CreateListener(ctx, r)
		})
		for range 4 {
			wg.Go(func() {
				if _, err := d.listeners.CreateListener(d.ctx, r); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
		}
		wg.Wait()
	}
	if n := len(d.list()); n != 20 {
		t.Errorf("%d listeners", n)
	}
}
