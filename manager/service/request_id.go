package service

import (
	"context"
	"crypto/rand"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// requestIDHeader tells the client under which id its call is in the audit.
const requestIDHeader = "sockmgr-request-id"

type requestIDKey struct{}

// withRequestID gives a call an id, that of the client if it has one. Calls that
// only move bytes have none: nothing is written down of them.
func withRequestID(ctx context.Context, method string, req any) context.Context {
	id := requestID(req)
	if id == "" {
		if strings.HasPrefix(method, socketMethods) && !audited[method] {
			return ctx
		}
		id = rand.Text()
	} else if !uuidForm.MatchString(id) {
		return context.WithValue(ctx, requestIDKey{}, id) // which is refused, and fits no header
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, id)) // beside gRPC there is none
	return context.WithValue(ctx, requestIDKey{}, id)
}

// requestIDOf is the id of a call.
func requestIDOf(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
