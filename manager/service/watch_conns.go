package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// Bounds of update_interval: each update looks at every connection.
const (
	leastUpdate = 100 * time.Millisecond
	mostUpdate  = time.Hour
)

// WatchConnections is ConnectionService.
func (s *connectionService) WatchConnections(r *pb.WatchConnectionsRequest, stream grpc.ServerStreamingServer[pb.WatchConnectionsResponse]) error {
	walk, err := s.newWalk(r.GetFilter())
	if err != nil {
		return err
	}
	every := r.GetUpdateInterval()
	if d := every.AsDuration(); every != nil && (every.CheckValid() != nil || d < leastUpdate || d > mostUpdate) {
		return &listeners.Violation{Field: "update_interval", Message: fmt.Sprintf("must be from %v to %v", leastUpdate, mostUpdate)}
	}
	feed, err := s.m.WatchConns(stream.Context())
	if err != nil {
		return err
	}
	defer feed.Close()
	if err := stream.SendHeader(nil); err != nil { // tells the client that it misses nothing from here on
		return err
	}
	w := &connWatch{
		walk: walk, feed: feed, stream: stream, perSecond: r.GetMaxRate(), every: every.AsDuration(),
		since: feed.Began, same: map[uint64]bool{}, ending: map[uint64]listeners.ConnState{},
	}
	if r.GetSendInitial() {
		if err := w.initial(); err != nil {
			return err
		}
	}
	return w.follow()
}

// connWatch is one WatchConnections call.
type connWatch struct {
	walk   *connWalk
	feed   *manager.ConnWatch
	stream grpc.ServerStreamingServer[pb.WatchConnectionsResponse]

	perSecond uint32    // 0: no limit
	second    time.Time // when the present second began
	sent      uint32    // in it
	dropped   uint64    // not told yet

	every  time.Duration                  // between two updates; 0: none
	since  time.Time                      // of the turn from which on the next update looks
	same   map[uint64]bool                // sent at first, and opened in the turn in which the watch began
	ending map[uint64]listeners.ConnState // what is not open any more, as it was sent last
}

// initial sends what is open. What happens meanwhile is sent between two pages,
// so that it is not lost however many there are; a connection that closes before
// its page comes is only seen to close.
func (w *connWatch) initial() error {
	for next := 0; next >= 0; {
		var err error
		next, err = w.walk.some(w.stream.Context(), listeners.ConnQuery{}, next, maxPage, func(st listeners.ConnStatus, c *pb.Connection) error {
			switch began := w.feed.Began; {
			case st.Opened.After(began):
				return nil // the feed has it
			case st.Opened.Equal(began):
				w.same[st.Cookie] = true // the feed has it, or not
			}
			return w.stream.Send(&pb.WatchConnectionsResponse{Type: pb.WatchConnectionsResponse_TYPE_OPENED, Connection: c, Time: c.GetCreateTime()})
		})
		if err != nil {
			return err
		}
		if err := w.waiting(); err != nil {
			return err
		}
	}
	return w.stream.Send(&pb.WatchConnectionsResponse{Type: pb.WatchConnectionsResponse_TYPE_SYNCED, Time: timestamppb.Now()})
}

// waiting sends what has happened already.
func (w *connWatch) waiting() error {
	for w.feed.Waiting() {
		if err := w.next(w.stream.Context()); err != nil {
			return err
		}
	}
	return nil
}

// follow sends what happens, and updates when their time has come.
func (w *connWatch) follow() error {
	ctx := w.stream.Context()
	if w.every == 0 {
		for {
			if err := w.next(ctx); err != nil {
				return err
			}
		}
	}
	for {
		untilUpdate, cancel := context.WithTimeout(ctx, w.every)
		var err error
		for err == nil {
			err = w.next(untilUpdate)
		}
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err := w.update(); err != nil {
			return err
		}
	}
}

// next waits for an event and sends it.
func (w *connWatch) next(ctx context.Context) error {
	e, err := w.feed.Next(ctx)
	if err != nil {
		return err
	}
	w.dropped += e.Dropped
	st := e.Conn
	if st.State == listeners.ConnClosed {
		return w.send(pb.WatchConnectionsResponse_TYPE_CLOSED, st, w.walk.convert(st), st.Ended)
	}
	if st.Opened.Equal(w.feed.Began) && w.same[st.Cookie] {
		return nil
	}
	return w.send(pb.WatchConnectionsResponse_TYPE_OPENED, st, w.walk.convert(st), st.Opened)
}

// update sends the connections that have changed since the last time: on which
// a byte moved, or that are about to end.
func (w *connWatch) update() error {
	ctx := w.stream.Context()
	began, err := w.feed.Turn(ctx)
	if err != nil {
		return err
	}
	q := listeners.ConnQuery{Since: w.since}
	w.since = began
	before := w.ending
	w.ending = map[uint64]listeners.ConnState{} // with those that are still there
	for next := 0; next >= 0; {
		next, err = w.walk.some(ctx, q, next, maxPage, func(st listeners.ConnStatus, c *pb.Connection) error {
			moved := !st.Active.Before(q.Since) && st.Received+st.Sent > 0
			if st.State != listeners.ConnOpen {
				moved = moved || before[st.Cookie] != st.State
				w.ending[st.Cookie] = st.State
			}
			if !moved {
				return nil
			}
			return w.send(pb.WatchConnectionsResponse_TYPE_UPDATED, st, c, time.Now())
		})
		if err != nil {
			return err
		}
		if err := w.waiting(); err != nil {
			return err
		}
	}
	return nil
}

// send sends one event if it matches, and if its second has room for it.
func (w *connWatch) send(t pb.WatchConnectionsResponse_Type, st listeners.ConnStatus, c *pb.Connection, at time.Time) error {
	if !w.walk.want.match(c) {
		return nil
	}
	if now := time.Now(); w.perSecond > 0 {
		if now.Sub(w.second) >= time.Second {
			w.second, w.sent = now, 0
		}
		if w.sent == w.perSecond {
			w.dropped++
			return nil
		}
		w.sent++
	}
	if st.Peer != nil && c.GetPeer().GetCommand() == "" {
		c.Peer.Command = listeners.CommandOf(int(st.Peer.Pid))
	}
	r := &pb.WatchConnectionsResponse{Type: t, Connection: c, Dropped: w.dropped, Time: timestamppb.New(at)}
	w.dropped = 0
	return w.stream.Send(r)
}
