package service

import (
	"context"
	"crypto/rand"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sockmgr/sockmgr/manager"
)

// requestIDHeader tells the client under which id its call is in the audit.
const requestIDHeader = "sockmgr-request-id"

// begin gives a call what its audit needs: an id, that of the client if it has
// one, and who causes what it changes. Calls that only move bytes have no id,
// unless they are refused: nothing is written down of them.
func begin(ctx context.Context, method string, req any) context.Context {
	id := requestID(req)
	switch {
	case id == "" && strings.HasPrefix(method, socketMethods) && !audited[method]:
		return manager.WithCause(ctx, manager.Cause{Actor: callerOf(ctx).String()})
	case id == "":
		id = rand.Text()
		tellID(ctx, id)
	case uuidForm.MatchString(id):
		tellID(ctx, id)
	default: // it is refused, and fits no header
	}
	ctx = context.WithValue(ctx, noteKey{}, &callNote{id: id})
	return manager.WithCause(ctx, manager.Cause{Actor: callerOf(ctx).String(), RequestID: id})
}

func tellID(ctx context.Context, id string) {
	_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, id)) // beside gRPC there is none
}

// requestIDOf is the id of a call.
func requestIDOf(ctx context.Context) string {
	if n := noteOf(ctx); n != nil {
		return n.id
	}
	return ""
}
