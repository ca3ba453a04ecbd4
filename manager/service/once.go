package service

import (
	"context"
	"regexp"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sockmgr/sockmgr/listeners"
)

// What is kept for requests that are sent again: so many answers, or fewer that
// take so many bytes.
const (
	keptAnswers = 1024
	keptBytes   = 16 << 20
)

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// once makes a request with a request_id happen once: sent again, it is given
// the first answer. A request that failed may be tried again (AIP-155). What
// is known is in memory and bounded: it is for a client that lost an answer,
// not for one that comes back tomorrow.
type once struct {
	mu    sync.Mutex
	calls map[string]*call
	order []string // finished ones, oldest first
	bytes int      // of those, requests and answers
}

// call is a request that runs or has run.
type call struct {
	method string
	req    proto.Message
	done   chan struct{}
	resp   any
	err    error
	bytes  int // of req and resp; set when it is done
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
			noteAgain(ctx)
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
	c.bytes = proto.Size(c.req)
	if resp, ok := c.resp.(proto.Message); ok {
		c.bytes += proto.Size(resp)
	}
	o.order = append(o.order, key)
	o.bytes += c.bytes
	for len(o.order) > keptAnswers || o.bytes > keptBytes {
		o.bytes -= o.calls[o.order[0]].bytes
		delete(o.calls, o.order[0])
		o.order = o.order[1:]
	}
}
