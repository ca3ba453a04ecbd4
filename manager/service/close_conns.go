package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

// CloseConnections is ConnectionService. It finds all that match first, so that
// connections which open meanwhile are left alone.
func (s *connectionService) CloseConnections(r *pb.CloseConnectionsRequest, stream grpc.ServerStreamingServer[pb.CloseConnectionsResponse]) error {
	if r.GetFilter() == "" && !r.GetAll() {
		return &listeners.Violation{Field: "filter", Message: "is empty: set all to close every connection of the daemon"}
	}
	grace := r.GetGrace().AsDuration()
	if r.GetGrace() != nil && (r.GetGrace().CheckValid() != nil || grace < 0 || grace > maxDrain) {
		return &listeners.Violation{Field: "grace", Message: fmt.Sprintf("must be from 0s to %v", maxDrain)}
	}
	w, err := s.newWalk(r.GetFilter())
	if err != nil {
		return err
	}
	var matched []listeners.ConnStatus
	err = w.all(stream.Context(), func(st listeners.ConnStatus, _ *pb.Connection) error {
		if st.State != listeners.ConnClosing || r.GetReset_() { // or else it is being closed
			matched = append(matched, st)
			return mayTouch(stream.Context(), pb.Role_ROLE_OPERATOR, "close connections of "+st.Listener, st.Listener)
		}
		return nil
	})
	if err != nil {
		return err
	}
	resp := &pb.CloseConnectionsResponse{Matched: uint64(len(matched))}
	defer noteClosed(stream.Context(), matched, resp)
	if grace > 0 && len(matched) > 0 && !r.GetValidateOnly() {
		if matched, err = s.waitClosed(matched, grace, resp, stream); err != nil {
			return err
		}
	}
	for len(matched) > 0 && !r.GetValidateOnly() {
		n := min(len(matched), maxPage)
		closed, err := s.m.CloseConns(stream.Context(), matched[:n], r.GetReset_())
		if err != nil {
			return err
		}
		matched = matched[n:]
		resp.Closed += uint64(closed)
		if len(matched) > 0 {
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
	}
	resp.Done = true
	return stream.Send(resp)
}

// noteClosed notes what has become of connections.
func noteClosed(ctx context.Context, matched []listeners.ConnStatus, resp *pb.CloseConnectionsResponse) {
	noteChange(ctx, "connections", fmt.Sprintf("%d open", len(matched)), fmt.Sprintf("%d closed", resp.GetClosed()))
	if resp.GetClosed() < uint64(len(matched)) {
		return // which of them it was is not known here
	}
	for _, c := range matched[:min(len(matched), auditChanges)] {
		noteChange(ctx, fmt.Sprintf("%s of %s, from %v", hexName(connectionPrefix, c.Cookie), c.Listener, c.Remote), "open", "closed")
	}
}

// closeProgress is how often a client is told how many have closed.
const closeProgress = time.Second

// waitClosed tells connections to finish, waits until they have or the time is
// over, and returns those that are open still.
func (s *connectionService) waitClosed(
	conns []listeners.ConnStatus, grace time.Duration, resp *pb.CloseConnectionsResponse, stream grpc.ServerStreamingServer[pb.CloseConnectionsResponse],
) ([]listeners.ConnStatus, error) {
	until, cancel := context.WithTimeout(stream.Context(), grace)
	defer cancel()
	feed, err := s.m.WatchConns(stream.Context())
	if err != nil {
		return nil, err
	}
	defer feed.Close()
	if err := s.m.RetireConns(stream.Context(), conns); err != nil {
		return nil, err
	}
	// Some may have closed before the feed began.
	left := make(map[uint64]bool, len(conns))
	if err := s.m.EachOpen(stream.Context(), conns, func(cookie uint64) { left[cookie] = true }); err != nil {
		return nil, err
	}
	for told := time.Now(); len(left) > 0; {
		e, err := feed.Next(until)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && stream.Context().Err() == nil:
			conns = slices.DeleteFunc(conns, func(c listeners.ConnStatus) bool { return !left[c.Cookie] })
			return conns, nil
		case err != nil:
			return nil, err
		case e.Dropped > 0: // what they were is not known any more
			clear(left)
			if err := s.m.EachOpen(stream.Context(), conns, func(cookie uint64) { left[cookie] = true }); err != nil {
				return nil, err
			}
		case e.Conn.State == listeners.ConnClosed:
			delete(left, e.Conn.Cookie)
		}
		resp.Closed = uint64(len(conns) - len(left))
		if time.Since(told) >= closeProgress {
			told = time.Now()
			if err := stream.Send(resp); err != nil {
				return nil, err
			}
		}
	}
	resp.Closed = uint64(len(conns))
	return nil, nil
}
