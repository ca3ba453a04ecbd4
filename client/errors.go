package client

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// opError is an error of a call as package net has it: with the errno, if the
// kernel gave one.
func opError(op string, source, addr net.Addr, err error) error {
	if err == nil {
		return nil
	}
	network := ""
	if known := addr; known != nil {
		network = known.Network()
	} else if source != nil {
		network = source.Network()
	}
	return &net.OpError{Op: op, Net: network, Source: source, Addr: addr, Err: cause(err)}
}

// cause is what an RPC failed of.
func cause(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	st := status.Convert(err)
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok {
			continue
		}
		if n, bad := strconv.Atoi(info.GetMetadata()["errno_number"]); bad == nil && n > 0 {
			return &callError{err, syscall.Errno(n)}
		}
	}
	switch st.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return os.ErrDeadlineExceeded
	default:
		return err
	}
}

// A callError is what a system call in the daemon failed with.
type callError struct {
	err   error // of the RPC, with all that the daemon said
	errno syscall.Errno
}

func (e *callError) Error() string   { return status.Convert(e.err).Message() }
func (e *callError) Unwrap() []error { return []error{e.err, e.errno} }
func (e *callError) Timeout() bool   { return e.errno.Timeout() }
func (e *callError) Temporary() bool { return e.errno.Temporary() }
