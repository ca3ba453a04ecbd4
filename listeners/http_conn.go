package listeners

import (
	"bytes"
	"errors"
	"slices"
	"time"
)

// httpConn is one connection of an httpHandler.
//
//	        first byte             request complete
//	 idle ------------> begun -------------------------> idle, or ended
//	  |  keepalive_timeout |  request_timeout    (answered)
//	  v                    v
//	ended, silently      408, ended
//
// The first request's time runs from accept on.
type httpConn struct {
	h        *httpHandler
	req      httpRequest
	served   bool // a request has been answered
	armed    bool // a deadline is set
	draining bool // the next response is the last
	resting  bool // so, and the stream ends unless a request comes soon
}

// httpDrainPoll is how often a draining connection that owes nothing more
// looks whether its output has gone.
const httpDrainPoll = 100 * time.Millisecond

// Open starts the time of the first request.
func (h *httpHandler) Open(from Peer) (Handler, error) {
	c := &httpConn{h: h}
	c.arm(from, from.Tunables().RequestTimeout)
	return c, nil
}

// Handle is for connections only: what was read of a request is theirs.
func (h *httpHandler) Handle(Peer, []byte) (int, error) {
	return 0, errors.New("http: Handle without Open")
}

// Handle answers all requests that are complete in p, with as few writes as
// can be. It stops early once it has sent what it gathers for one write, and
// after a body sent by WriteShared, which must be the last write of a call: it
// then counts on being called again with the rest even though no output is
// pending.
func (c *httpConn) Handle(from Peer, p []byte) (int, error) {
	h, t := c.h, from.Tunables()
	h.stamp(from.Now())
	room := min(httpGather, int(t.WriteBuffer)) - h.most
	out, n, begun, idle := h.out[:0], 0, c.req.begun, false
	for n < len(p) {
		if len(out) > 0 && len(out) > room {
			if err := h.send(from, out, nil); err != nil {
				return n, err
			}
			out = out[:0]
			break
		}
		k, refusal := c.next(p[n:], t)
		n += k
		if refusal != nil {
			return len(p), h.last(from, h.appendRefusal(out, refusal, c.req.isHead), nil)
		}
		if c.req.phase != httpDone {
			if c.req.phase > httpFields && c.req.expects {
				c.req.expects = false
				out = append(out, httpContinue...)
			}
			break
		}
		isHead, ending := c.req.isHead, c.ending()
		c.req, c.served, begun, idle = httpRequest{}, true, false, true
		out = h.appendResponse(out, ending, isHead)
		var body []byte
		if h.shared && !isHead {
			body = h.body
		}
		if ending == httpCloses {
			return n, h.last(from, out, body)
		}
		if body != nil {
			c.arm(from, t.KeepaliveTimeout)
			return n, h.send(from, out, body)
		}
	}
	switch {
	case c.req.begun && !begun && (c.served || c.resting):
		c.arm(from, t.RequestTimeout)
	case idle && !c.req.begun:
		c.arm(from, t.KeepaliveTimeout)
	}
	return n, h.send(from, out, nil)
}

// next is httpRequest.read, but it knows the last head again if that had no
// body: clients and health checks ask the same all the time, and comparing is
// several times faster than parsing.
func (c *httpConn) next(p []byte, t *Tunables) (int, *httpRefusal) {
	h, fresh := c.h, c.req == httpRequest{}
	if fresh && len(h.again) > 0 && bytes.HasPrefix(p, h.again) {
		c.req = h.meant
		return len(h.again), nil
	}
	n, refusal := c.req.read(p, t)
	if fresh && refusal == nil && c.req.phase == httpDone && n == int(c.req.size) && n <= httpAgainMost {
		h.again, h.meant = append(h.again[:0], p[:n]...), c.req
	}
	return n, refusal
}

// ending says how to go on after the request just read.
func (c *httpConn) ending() string {
	switch {
	case c.draining || c.req.closes || c.req.http10 && !c.req.keepAlive:
		return httpCloses
	case c.req.http10:
		return httpKeepAlive
	}
	return httpPersists
}

// send writes out, which has grown from h.out, then body, which may be nil and
// must never change.
func (h *httpHandler) send(from Peer, out, body []byte) error {
	h.out = out
	if len(out) == 0 {
		return nil
	}
	n, err := from.Write(out)
	switch {
	case err != nil:
		return err
	case n < len(out):
		// Only if write_buffer_bytes is less than one response: half of one
		// cannot be taken back, so it is kept beyond the bound.
		return from.WriteShared(slices.Concat(out[n:], body))
	case body != nil:
		return from.WriteShared(body)
	}
	return nil
}

// last is send, then the end of the stream.
func (h *httpHandler) last(from Peer, out, body []byte) error {
	if err := h.send(from, out, body); err != nil {
		return err
	}
	return errDone
}

// arm asks for Expired in d; 0 asks for none.
func (c *httpConn) arm(from Peer, d time.Duration) {
	switch {
	case d > 0:
		from.SetDeadline(from.Now().Add(d))
	case c.armed:
		from.SetDeadline(time.Time{})
	}
	c.armed = d > 0
}

// Expired ends the stream: with 408 where part of a request has arrived, else
// without a word (RFC 9110 15.5.9 has 408 for requests that were begun). A
// client that does not even take what it is sent gets no 408; one that is
// still being sent a response is not idle.
func (c *httpConn) Expired(from Peer) error {
	switch {
	case c.req.begun && from.Pending():
		return errDone
	case c.req.begun:
		c.h.stamp(from.Now())
		return c.h.last(from, c.h.appendRefusal(c.h.out[:0], httpTooSlow, c.req.isHead), nil)
	case !from.Pending() && c.draining && !c.resting: // the response was not the last yet
		c.Rest(from, drainGrace)
	case !from.Pending():
		return errDone
	case c.draining:
		c.arm(from, httpDrainPoll)
	default:
		c.arm(from, from.Tunables().KeepaliveTimeout)
	}
	return nil
}

// Drain reports whether no request is begun and no response on its way. If
// one is, or one comes later, the response closes the connection.
func (c *httpConn) Drain(from Peer) bool {
	c.draining = true
	if c.req.begun {
		return false
	}
	if from.Pending() {
		c.arm(from, httpDrainPoll)
		return false
	}
	return true
}

// Rest gives a client that keeps the connection the time for one more request:
// it may be on its way already, and be lost if the stream ended now (RFC 9112,
// 9.6).
func (c *httpConn) Rest(from Peer, grace time.Duration) {
	c.resting = true
	c.arm(from, grace)
}
