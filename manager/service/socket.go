package service

import (
	"context"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
	"github.com/sockmgr/sockmgr/sockets"
)

// socketService has the socket calls: socket_calls.go those that may wait.
type socketService struct {
	pb.UnsafeSocketServiceServer
	m *manager.Manager
}

func (s *socketService) table() *sockets.Table { return s.m.Sockets() }

// socketCaller is who calls, as sockets know their owners.
func socketCaller(ctx context.Context) sockets.Caller {
	c := callerOf(ctx)
	who := sockets.Caller{Name: c.String(), Admin: c.granted >= pb.Role_ROLE_ADMIN}
	if stream := streamOf(ctx); stream != 0 && c.answers != nil {
		who.Watch = func(withdraw func()) func(int) {
			c.answers.begin(stream, withdraw)
			return func(bytes int) { c.answers.answered(stream, bytes) }
		}
	}
	return who
}

var socketKind = (&pb.Socket{}).ProtoReflect().Descriptor()

var roleToPB = map[sockets.Role]pb.Socket_Role{
	sockets.Created: pb.Socket_ROLE_CREATED, sockets.Listening: pb.Socket_ROLE_LISTENER,
	sockets.Accepted: pb.Socket_ROLE_ACCEPTED, sockets.Outbound: pb.Socket_ROLE_OUTBOUND,
}

var networkFromPB = map[pb.Network]listeners.Network{
	pb.Network_NETWORK_TCP: listeners.TCP, pb.Network_NETWORK_UDP: listeners.UDP, pb.Network_NETWORK_UNIX: listeners.Unix,
	pb.Network_NETWORK_UNIXGRAM: listeners.Unixgram, pb.Network_NETWORK_UNIXPACKET: listeners.Unixpacket,
}

func anySocketToPB(s sockets.Status) *pb.Socket {
	out := socketToPB(s.Listener, s.SocketStatus)
	out.Role, out.Owner = roleToPB[s.Role], s.Owner
	if s.Listener == "" {
		out.Listener = ""
	}
	if s.Connection != 0 {
		out.Connection = hexName(connectionPrefix, s.Connection)
	}
	if s.Remote.IP.IsValid() || s.Remote.Path != "" {
		out.Remote = addressToPB(s.Remote)
	}
	if s.TCP != nil {
		out.TcpInfo = tcpInfoToPB(s.TCP, s.Congestion)
	}
	return out
}

func remoteToPB(r *listeners.Remote) *pb.RemoteHandler {
	out := &pb.RemoteHandler{MaxPending: r.MaxPending}
	if r.AttachTimeout != 0 {
		out.AttachTimeout = durationpb.New(r.AttachTimeout)
	}
	return out
}

// waitFromPB is a time to wait; unset is for ever.
func waitFromPB(field string, d *durationpb.Duration) (time.Duration, error) {
	switch {
	case d == nil:
		return sockets.Forever, nil
	case d.CheckValid() != nil || d.AsDuration() < 0:
		return 0, &listeners.Fault{
			Reason: listeners.SpecInvalid, Message: field + ": is negative, or no duration", Field: field, Err: unix.EINVAL,
			Fix: "leave it out to wait for ever; 0s does not wait",
		}
	}
	return d.AsDuration(), nil
}

// CreateSocket is SocketService.
func (s *socketService) CreateSocket(ctx context.Context, r *pb.CreateSocketRequest) (*pb.CreateSocketResponse, error) {
	values, faults := valuesFromPB("options", r.GetOptions())
	if len(faults) > 0 {
		return nil, &manager.Invalid{Violations: faults}
	}
	if err := mayTuneRaw(ctx, values); err != nil {
		return nil, err
	}
	idle, err := waitFromPB("idle_timeout", r.GetIdleTimeout())
	if err != nil {
		return nil, err
	}
	st, err := s.table().Create(ctx, socketCaller(ctx), sockets.Spec{
		Network: networkFromPB[r.GetNetwork()], IPVersion: int(r.GetIpVersion()), Options: values, Idle: max(idle, 0),
	})
	if err != nil {
		return nil, err
	}
	return &pb.CreateSocketResponse{Socket: anySocketToPB(st)}, nil
}

// GetSocket is SocketService.
func (s *socketService) GetSocket(ctx context.Context, r *pb.GetSocketRequest) (*pb.GetSocketResponse, error) {
	st, err := s.table().Get(ctx, r.GetName(), r.GetView() == pb.SocketView_SOCKET_VIEW_FULL)
	if err != nil {
		return nil, err
	}
	return &pb.GetSocketResponse{Socket: anySocketToPB(st)}, nil
}

// ListSockets is SocketService. The order is that of descriptors, which sockets
// keep for life: a page token is the descriptor to go on from.
func (s *socketService) ListSockets(ctx context.Context, r *pb.ListSocketsRequest) (*pb.ListSocketsResponse, error) {
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	want, used, err := parseQuery(r.GetFilter(), socketKind)
	if err != nil {
		return nil, err
	}
	from, err := parseToken(r.GetPageToken(), socketPrefix, r.GetFilter())
	if err != nil {
		return nil, err
	}
	full := r.GetView() == pb.SocketView_SOCKET_VIEW_FULL
	resp := &pb.ListSocketsResponse{}
	next, _ := strconv.Atoi(from) // ours; empty is the beginning
	for next >= 0 && len(resp.GetSockets()) < size {
		var some []sockets.Status
		some, next, err = s.table().List(ctx, next, size-len(resp.GetSockets()), full || used["tcp_info"])
		if err != nil {
			return nil, err
		}
		for _, st := range some {
			if one := anySocketToPB(st); want.match(one) {
				resp.Sockets = append(resp.Sockets, trimmed(one, full))
			}
		}
	}
	if next >= 0 {
		resp.NextPageToken = makeToken(strconv.Itoa(next), socketPrefix, r.GetFilter())
	}
	return resp, nil
}

// trimmed leaves out what the basic view does not have.
func trimmed(s *pb.Socket, full bool) *pb.Socket {
	if !full {
		s.TcpInfo = nil
	}
	return s
}

// Bind is SocketService.
func (s *socketService) Bind(ctx context.Context, r *pb.BindRequest) (*pb.BindResponse, error) {
	local, err := s.table().Bind(ctx, socketCaller(ctx), r.GetName(), r.GetAddress())
	if err != nil {
		return nil, err
	}
	return &pb.BindResponse{Local: addressToPB(local)}, nil
}

// Listen is SocketService.
func (s *socketService) Listen(ctx context.Context, r *pb.ListenRequest) (*pb.ListenResponse, error) {
	backlog, err := s.table().Listen(ctx, socketCaller(ctx), r.GetName(), r.GetBacklog())
	if err != nil {
		return nil, err
	}
	return &pb.ListenResponse{Backlog: backlog}, nil
}

// SetTimeout is SocketService.
func (s *socketService) SetTimeout(ctx context.Context, r *pb.SetTimeoutRequest) (*pb.SetTimeoutResponse, error) {
	timeout, err := waitFromPB("timeout", r.GetTimeout())
	if err != nil {
		return nil, err
	}
	return &pb.SetTimeoutResponse{}, s.table().SetTimeout(ctx, socketCaller(ctx), r.GetName(), timeout)
}

// Shutdown is SocketService.
func (s *socketService) Shutdown(ctx context.Context, r *pb.ShutdownRequest) (*pb.ShutdownResponse, error) {
	return &pb.ShutdownResponse{}, s.table().Shutdown(ctx, socketCaller(ctx), r.GetName(), r.GetRead(), r.GetWrite())
}

// CloseSocket is SocketService.
func (s *socketService) CloseSocket(ctx context.Context, r *pb.CloseSocketRequest) (*pb.CloseSocketResponse, error) {
	return &pb.CloseSocketResponse{}, s.table().CloseSocket(ctx, socketCaller(ctx), r.GetName())
}
