package service

import (
	"context"
	"regexp"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sockmgr/sockmgr/listeners"
)

// keptAnswers is how many answers are kept for requests that are sent again.
const keptAnswers = 1024

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// once makes a request with a request_id happen once: sent again, it is given
// the first answer. A request that failed may be tried again (AIP-155). What
// is known is in memory and bounded: it is for a client that lost an answer,
// not for one that comes back tomorrow.
type once struct {
	mu    sync.Mutex
	calls map[string]*call
	order []string // finished ones, oldest first
}

// call is a request that runs or has run.
type call struct {
	method string
	req    proto.Message
	done   chan struct{}
	resp   any
	err    error
}

func newOnce() *once { return &once{calls: map[string]*call{}} }

func (o *once) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	r, ok := req.(interface {
		proto.Message
		GetRequestId() string
	})
	if !ok || r.GetRequestId() == "" {
		return next(ctx, req)
	}
	id := r.GetRequestId()
	if !uuidForm.MatchString(id) {
		return nil, &listeners.Violation{Field: "request_id", Message: "is not a UUID"}
	}
	key := callerOf(ctx).String() + " " + id
	for {
		c, first := o.begin(key, info.FullMethod, r)
		if first {
			defer o.end(key, c)
			c.resp, c.err = next(ctx, req)
			return c.resp, c.err
		}
		if c.method != info.FullMethod || !proto.Equal(c.req, r) {
			return nil, &listeners.Violation{Field: "request_id", Message: "was used for another request"}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.done:
		}
		if c.err == nil {
			return c.resp, nil
		}
	}
}

func (o *once) begin(key, method string, req proto.Message) (c *call, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.calls[key]; c != nil {
		return c, false
	}
	c = &call{method: method, req: proto.Clone(req), done: make(chan struct{})}
	o.calls[key] = c
	return c, true
}

func (o *once) end(key string, c *call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.resp == nil && c.err == nil {
		c.err = listeners.Internal // it panicked; who waits tries again
	}
	close(c.done)
	if c.err != nil {
		delete(o.calls, key)
		return
	}
	o.order = append(o.order, key)
	if len(o.order) > keptAnswers {
		delete(o.calls, o.order[0])
		o.order = o.order[1:]
	}
}
