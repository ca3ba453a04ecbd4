package service

import (
	"context"
	"strconv"

	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

type connectionService struct {
	pb.UnsafeConnectionServiceServer
	m *manager.Manager
}

// GetConnection is ConnectionService.
func (s *connectionService) GetConnection(ctx context.Context, r *pb.GetConnectionRequest) (*pb.GetConnectionResponse, error) {
	st, err := s.m.Conn(ctx, bare(r.GetName(), connectionPrefix))
	if err != nil {
		return nil, err
	}
	return &pb.GetConnectionResponse{Connection: connToPB(st)}, nil
}

// ListConnections is ConnectionService. The order is that of descriptors, which
// connections keep for life: a page token is the descriptor to go on from.
func (s *connectionService) ListConnections(ctx context.Context, r *pb.ListConnectionsRequest) (*pb.ListConnectionsResponse, error) {
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	want, err := parseFilter(r.GetFilter(), (&pb.Connection{}).ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	token, err := parseToken(r.GetPageToken(), connectionPrefix, r.GetFilter())
	if err != nil {
		return nil, err
	}
	next, _ := strconv.Atoi(token) // ours; empty is the beginning
	resp := &pb.ListConnectionsResponse{}
	full := r.GetView() == pb.ConnectionView_CONNECTION_VIEW_FULL
	for next >= 0 && len(resp.GetConnections()) < size {
		var conns []listeners.ConnStatus
		if conns, next, err = s.m.Conns(ctx, "", next, size-len(resp.GetConnections()), full); err != nil {
			return nil, err
		}
		for _, st := range conns {
			if c := connToPB(st); want.match(c) {
				resp.Connections = append(resp.Connections, c)
			}
		}
	}
	if next >= 0 {
		resp.NextPageToken = makeToken(strconv.Itoa(next), connectionPrefix, r.GetFilter())
	}
	return resp, nil
}

// CloseConnections is ConnectionService. It finds all that match first, so that
// connections which open meanwhile are left alone.
func (s *connectionService) CloseConnections(r *pb.CloseConnectionsRequest, stream grpc.ServerStreamingServer[pb.CloseConnectionsResponse]) error {
	if r.GetFilter() == "" && !r.GetAll() {
		return &listeners.Violation{Field: "filter", Message: "is empty: set all to close every connection of the daemon"}
	}
	want, err := parseFilter(r.GetFilter(), (&pb.Connection{}).ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	var matched []listeners.ConnStatus
	for next := 0; next >= 0; {
		var conns []listeners.ConnStatus
		if conns, next, err = s.m.Conns(stream.Context(), "", next, maxPage, false); err != nil {
			return err
		}
		for _, st := range conns {
			if st.State == listeners.ConnClosing && !r.GetReset_() {
				continue // it is being closed
			}
			if want.match(connToPB(st)) {
				matched = append(matched, st)
			}
		}
	}
	resp := &pb.CloseConnectionsResponse{Matched: uint64(len(matched))}
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
