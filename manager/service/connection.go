package service

import (
	"context"

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

// ListConnections is ConnectionService. Without order_by the order is that of
// descriptors, which connections keep for life: a page token is the descriptor
// to go on from.
func (s *connectionService) ListConnections(ctx context.Context, r *pb.ListConnectionsRequest) (*pb.ListConnectionsResponse, error) {
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	w, err := s.newWalk(r.GetFilter())
	if err != nil {
		return nil, err
	}
	by, err := parseOrder(r.GetOrderBy(), connectionKind, w.used)
	if err != nil {
		return nil, err
	}
	query := r.GetFilter() + "\x00" + r.GetOrderBy()
	from, err := parseToken(r.GetPageToken(), connectionPrefix, query)
	if err != nil {
		return nil, err
	}
	var conns []listeners.ConnStatus
	var next string
	if by == nil {
		conns, next, err = w.page(ctx, from, size)
	} else {
		conns, next, err = w.sorted(ctx, by, from, size)
	}
	if err != nil {
		return nil, err
	}
	if r.GetView() == pb.ConnectionView_CONNECTION_VIEW_FULL {
		if err := s.m.AskConns(ctx, conns, listeners.DetailFull); err != nil {
			return nil, err
		}
	}
	resp := &pb.ListConnectionsResponse{}
	for _, st := range conns {
		resp.Connections = append(resp.Connections, connToPB(st))
	}
	if next != "" {
		resp.NextPageToken = makeToken(next, connectionPrefix, query)
	}
	return resp, nil
}
