package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// emptyCommand is the hidden command that serves one method, which does nothing, at
// a Unix socket, with grpc-go as it comes: what a call takes without a daemon.
const (
	emptyCommand = "serve-empty"
	emptyMethod  = "/sockmgr.bench.Empty/Empty"
)

func serveEmpty(at string, stdin io.Reader, out io.Writer) error {
	l, err := net.Listen("unix", at)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "sockmgr.bench.Empty", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Empty", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			return in, decode(in)
		}}},
	}, struct{}{})
	if _, err := fmt.Fprintln(out, at); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // until who started it has gone
		s.Stop()
	}()
	return s.Serve(l)
}
