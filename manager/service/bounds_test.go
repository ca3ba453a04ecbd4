package service

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// deafStream is a client that reads nothing.
type deafStream struct {
	stubStream
	left *atomic.Int32 // messages that fit
}

func (s deafStream) SendMsg(any) error {
	if s.left.Add(-1) >= 0 {
		return nil
	}
	<-s.ctx.Done()
	return s.ctx.Err()
}

// A watcher that reads nothing is given up; the method that sends to it ends
// when gRPC ends the stream.
func TestDeafWatcher(t *testing.T) {
	g := &guard{log: hclog.NewNullLogger(), roles: methodRoles(), audit: newAuditor(hclog.NewNullLogger(), nil), blocked: 20 * time.Millisecond}
	ctx, end := context.WithCancel(callAs(0))
	ended := make(chan error)
	var left atomic.Int32
	left.Store(3)
	err := g.stream(nil, deafStream{stubStream{ctx: ctx}, &left}, &grpc.StreamServerInfo{FullMethod: "/sockmgr.v1.EventService/WatchEvents", IsServerStream: true},
		func(_ any, s grpc.ServerStream) error {
			var err error
			for err == nil {
				err = s.SendMsg(nil)
			}
			ended <- err
			return err
		})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "read nothing for 20ms") || left.Load() != -1 {
		t.Errorf("%v, %d left", err, left.Load())
	}
	end()
	if err := <-ended; err == nil {
		t.Error("it goes on")
	}
}
