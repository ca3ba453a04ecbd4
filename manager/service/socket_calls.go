package service

import (
	"context"
	"errors"
	"math"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/sockets"
)

// Accept is SocketService.
func (s *socketService) Accept(ctx context.Context, r *pb.AcceptRequest) (*pb.AcceptResponse, error) {
	var st sockets.Status
	var err error
	if listener, ok := strings.CutPrefix(r.GetName(), listenerPrefix); ok {
		st, err = s.m.Accept(ctx, socketCaller(ctx), listener)
	} else {
		st, err = s.table().Accept(ctx, socketCaller(ctx), r.GetName())
	}
	if err != nil {
		return nil, err
	}
	return &pb.AcceptResponse{Socket: anySocketToPB(st)}, nil
}

// Connect is SocketService. With return_errno whatever the kernel, or the
// socket's timeout, says is the answer.
func (s *socketService) Connect(ctx context.Context, r *pb.ConnectRequest) (*pb.ConnectResponse, error) {
	st, err := s.table().Connect(ctx, socketCaller(ctx), r.GetName(), r.GetAddress())
	errno, ok := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		return &pb.ConnectResponse{Socket: anySocketToPB(st)}, nil
	case !r.GetReturnErrno() || !ok:
		return nil, err
	}
	now, errGet := s.table().Get(ctx, r.GetName(), false)
	if errGet != nil {
		return nil, err // the socket is the matter
	}
	return &pb.ConnectResponse{Socket: anySocketToPB(now), ErrnoNumber: int32(errno), Errno: unix.ErrnoName(errno)}, nil
}

// Send is SocketService.
func (s *socketService) Send(ctx context.Context, r *pb.SendRequest) (*pb.SendResponse, error) {
	n, err := s.table().Send(ctx, socketCaller(ctx), r.GetName(), r.GetPayload(), r.GetAll())
	if err != nil {
		return nil, err
	}
	return &pb.SendResponse{Sent: uint32(n)}, nil
}

// Recv is SocketService.
func (s *socketService) Recv(ctx context.Context, r *pb.RecvRequest) (*pb.RecvResponse, error) {
	p, err := s.table().Recv(ctx, socketCaller(ctx), r.GetName(), size(r.GetMaxBytes()), r.GetPeek())
	if err != nil {
		return nil, err
	}
	return &pb.RecvResponse{Payload: p}, nil
}

// size is a number that the floor below bounds.
func size(n uint32) int { return int(min(n, math.MaxInt32)) }

// SendTo is SocketService.
func (s *socketService) SendTo(ctx context.Context, r *pb.SendToRequest) (*pb.SendToResponse, error) {
	n, err := s.table().SendTo(ctx, socketCaller(ctx), r.GetName(), r.GetPayload(), r.GetAddress())
	if err != nil {
		return nil, err
	}
	return &pb.SendToResponse{Sent: uint32(n)}, nil
}

// RecvFrom is SocketService.
func (s *socketService) RecvFrom(ctx context.Context, r *pb.RecvFromRequest) (*pb.RecvFromResponse, error) {
	all, err := s.table().RecvFrom(ctx, socketCaller(ctx), r.GetName(), size(r.GetMaxDatagrams()), size(r.GetMaxBytes()))
	if err != nil {
		return nil, err
	}
	resp := &pb.RecvFromResponse{}
	for _, d := range all {
		one := &pb.Datagram{Payload: d.Payload, Truncated: d.Truncated}
		if d.Remote.IP.IsValid() || d.Remote.Path != "" {
			one.Remote = addressToPB(d.Remote)
		}
		if d.Local.Network != "" {
			one.Local = addressToPB(d.Local)
		}
		resp.Datagrams = append(resp.Datagrams, one)
	}
	return resp, nil
}

// Poll is SocketService.
func (s *socketService) Poll(ctx context.Context, r *pb.PollRequest) (*pb.PollResponse, error) {
	timeout, err := waitFromPB("timeout", r.GetTimeout())
	if err != nil {
		return nil, err
	}
	ready, err := s.table().Poll(ctx, socketCaller(ctx), sockets.Lists{
		Readable: r.GetReadable(), Writable: r.GetWritable(), Exceptional: r.GetExceptional(),
	}, timeout)
	if err != nil {
		return nil, err
	}
	return &pb.PollResponse{Readable: ready.Readable, Writable: ready.Writable, Exceptional: ready.Exceptional}, nil
}

// Stream is SocketService. The first message names the socket, and may have
// bytes.
func (s *socketService) Stream(stream grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx := stream.Context()
	return s.table().Stream(ctx, socketCaller(ctx), first.GetName(), &streamClient{stream, first})
}

// streamClient is a client as a stream of bytes.
type streamClient struct {
	stream grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]
	first  *pb.StreamRequest
}

// Send is sockets.Client.
func (c *streamClient) Send(p []byte) error {
	return c.stream.Send(&pb.StreamResponse{Payload: p, HalfClose: len(p) == 0})
}

// Recv is sockets.Client.
func (c *streamClient) Recv() (p []byte, last bool, err error) {
	r := c.first
	if c.first = nil; r == nil {
		if r, err = c.stream.Recv(); err != nil {
			return nil, false, err
		}
	}
	return r.GetPayload(), r.GetHalfClose(), nil
}
