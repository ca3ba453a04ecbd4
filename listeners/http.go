package listeners

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// HTTP answers every HTTP/1.0 and HTTP/1.1 request with one fixed response.
// It reads requests as RFC 9112 allows at its strictest (see http_parse.go)
// and keeps connections open as the client asks.
//
// Content-Length, Date and Connection are the handler's own. A body that is
// valid UTF-8 is sent as text/plain; charset=utf-8 unless Headers has a
// Content-Type; other bodies get none. A status that has no content (204, 205,
// 304) is sent without Body.
type HTTP struct {
	Status  int               `json:"status"` // 0 means 200
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"` // not to be changed after New
}

// httpOwned are the response headers that say how the message is framed or
// when it was made; a wrong one breaks the connection for what follows.
var httpOwned = []string{"connection", "content-length", "date", "transfer-encoding"}

const (
	httpMaxHeaders = 16 << 10 // bytes of configured headers
	httpShareAbove = 4 << 10  // a larger body is sent without copying it
	httpGather     = 64 << 10 // most that is gathered for one write
	httpAgainMost  = 1 << 10  // most that is kept of a request head
	httpDateLen    = len(http.TimeFormat)
)

// Kind is HandlerSpec.Kind.
func (*HTTP) Kind() string { return "http" }

// Datagram is HandlerSpec.Datagram: HTTP needs a stream.
func (*HTTP) Datagram() bool { return false }

// Validate is HandlerSpec.Validate: what would make the response malformed.
func (s *HTTP) Validate() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &Violation{Field: "spec.handler.http." + field, Message: fmt.Sprintf(format, args...)})
	}
	if s.Status != 0 && (s.Status < 200 || s.Status > 599) {
		fault("status", "%d is not a final status; use 200 to 599", s.Status)
	}
	size := 0
	seen := make(map[string]bool, len(s.Headers))
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		value, lower := s.Headers[name], strings.ToLower(name)
		size += len(name) + len(value)
		field := "headers[" + name + "]"
		switch {
		case !httpToken(name):
			fault("headers", "%q is not a header name", name)
		case slices.Contains(httpOwned, lower):
			fault(field, "the daemon sets this header itself")
		case seen[lower]:
			fault(field, "is there twice, in different case")
		}
		seen[lower] = true
		if httpScan([]byte(value), ' ') < len(value) {
			fault(field, "%q has control characters", value)
		}
	}
	if size > httpMaxHeaders {
		fault("headers", "%d bytes, at most %d", size, httpMaxHeaders)
	}
	return errors.Join(faults...)
}

// New is HandlerSpec.New. All connections of a listener share the Handler.
func (s *HTTP) New() Handler {
	status := s.Status
	if status == 0 {
		status = http.StatusOK
	}
	h := &httpHandler{spec: s, second: -1 << 63}
	if status != http.StatusNoContent && status != http.StatusResetContent && status != http.StatusNotModified {
		h.body = s.Body
	}
	h.shared = len(h.body) > httpShareAbove

	head, dateAt := appendHTTPStatus(nil, status)
	head = append(head, "\r\n"...)
	// RFC 9110 8.6: none in a 204; in a 304 it would be the length that a 200
	// has, which nobody knows here.
	if status != http.StatusNoContent && status != http.StatusNotModified {
		head = appendHTTPLength(head, len(h.body))
	}
	typed := false
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		head = append(head, name+": "+s.Headers[name]+"\r\n"...)
		typed = typed || strings.EqualFold(name, "Content-Type")
	}
	if !typed && len(h.body) > 0 && utf8.Valid(h.body) {
		head = append(head, httpTextType...)
	}
	n := len(head)
	head = append(head, httpPersists...)
	if !h.shared {
		head = append(head, h.body...)
		h.body = head[n+len(httpPersists):]
	}
	h.plain = head
	h.head, h.dateAt = h.plain[:n], dateAt
	h.most = len(h.plain) + len(httpKeepAlive) + len(httpContinue) + httpRefusalMost
	return h
}

// httpHandler is the response, shared by all connections of a listener. Loop
// only.
type httpHandler struct {
	spec   *HTTP
	plain  []byte // the most usual response, up to what WriteShared sends
	head   []byte // of plain: status line and headers without Connection
	body   []byte // of plain if not shared; empty if the status has no content
	shared bool   // body is sent by WriteShared
	most   int    // bytes that one request adds to out, at most
	dateAt int    // where in head the date is
	second int64  // which it is the date of
	again  []byte // the last head that came whole and without a body
	meant  httpRequest
	out    []byte // responses gathered by a call of Handle; empty between calls
}

// How a response head ends: with the Connection header that the request's
// version and wishes call for (RFC 9112 9.3).
const (
	httpPersists  = "\r\n"
	httpCloses    = "Connection: close\r\n\r\n"
	httpKeepAlive = "Connection: keep-alive\r\n\r\n"
)

const (
	httpContinue    = "HTTP/1.1 100 Continue\r\n\r\n"
	httpTextType    = "Content-Type: text/plain; charset=utf-8\r\n"
	httpRefusalMost = 512 // bytes of a refusal
)

// stamp puts the present date into the head, once a second.
func (h *httpHandler) stamp(now time.Time) {
	second := now.Unix()
	if second == h.second {
		return
	}
	h.second = second
	var date [httpDateLen + 8]byte
	copy(h.head[h.dateAt:h.dateAt+httpDateLen], now.UTC().AppendFormat(date[:0], http.TimeFormat))
}

// appendResponse appends the response up to what WriteShared sends.
func (h *httpHandler) appendResponse(out []byte, ending string, isHead bool) []byte {
	if ending == httpPersists && !isHead {
		return append(out, h.plain...)
	}
	out = append(append(out, h.head...), ending...)
	if !isHead && !h.shared {
		out = append(out, h.body...)
	}
	return out
}

// appendRefusal appends the response to a request that is not served.
func (h *httpHandler) appendRefusal(out []byte, r *httpRefusal, isHead bool) []byte {
	status := http.StatusText(r.status)
	out, dateAt := appendHTTPStatus(out, r.status)
	copy(out[dateAt:], h.head[h.dateAt:h.dateAt+httpDateLen])
	out = append(out, "\r\n"+httpTextType...)
	out = appendHTTPLength(out, len(status)+len(": ")+len(r.why)+len("\n"))
	out = append(out, httpCloses...)
	if isHead {
		return out
	}
	out = append(out, status...)
	out = append(out, ": "...)
	out = append(out, r.why...)
	return append(out, '\n')
}

// appendHTTPStatus appends the status line and a Date header up to its line
// end, and returns where the date goes.
func appendHTTPStatus(out []byte, status int) (_ []byte, dateAt int) {
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(out, ' ') // stays before an empty reason phrase: RFC 9112 4
	out = append(out, http.StatusText(status)...)
	out = append(out, "\r\nDate: "...)
	dateAt = len(out)
	return append(out, http.TimeFormat...), dateAt
}

func appendHTTPLength(out []byte, n int) []byte {
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(n), 10)
	return append(out, "\r\n"...)
}
