package listeners

import (
	"bytes"
	"math"
)

// field reads a header line. Few matter; their length says which.
func (r *httpRequest) field(line []byte) *httpRefusal {
	name, value, ok := httpField(line)
	if !ok {
		return httpBadField
	}
	switch len(name) {
	case len("host"):
		if httpIs(name, "host") {
			return r.hostField(httpTrim(value))
		}
	case len("expect"):
		// RFC 9110 10.1.1: not in HTTP/1.0.
		if httpIs(name, "expect") && !r.http10 {
			r.expects = true
			if !httpIs(httpTrim(value), "100-continue") {
				return httpBadExpect
			}
		}
	case len("connection"):
		if httpIs(name, "connection") {
			r.connectionField(value)
		}
	case len("content-length"):
		if httpIs(name, "content-length") {
			return r.lengthField(httpTrim(value))
		}
	case len("transfer-encoding"):
		if httpIs(name, "transfer-encoding") {
			return r.codingField(value)
		}
	}
	return nil
}

// hostField reads Host: one at most, and nothing that is in no host (RFC 9112
// 3.2). It may be empty.
func (r *httpRequest) hostField(v []byte) *httpRefusal {
	if r.host {
		return httpTwoHosts
	}
	r.host = true
	for _, b := range v {
		if httpClass[b]&httpHostByte == 0 {
			return httpBadHost
		}
	}
	return nil
}

// connectionField reads Connection, a list (RFC 9110 7.6.1).
func (r *httpRequest) connectionField(v []byte) {
	for more := true; more; {
		var option []byte
		option, v, more = bytes.Cut(v, []byte{','})
		option = httpTrim(option)
		r.closes = r.closes || httpIs(option, "close")
		r.keepAlive = r.keepAlive || httpIs(option, "keep-alive")
	}
}

// lengthField reads Content-Length: digits (RFC 9110 8.6). A second one is
// refused even if it says the same, as RFC 9112 6.3 allows.
func (r *httpRequest) lengthField(v []byte) *httpRefusal {
	if r.length {
		return httpTwoLengths
	}
	r.length = true
	if len(v) == 0 {
		return httpBadLength
	}
	for _, b := range v {
		d := int64(b - '0')
		if d > 9 || r.left > (math.MaxInt64-d)/10 {
			return httpBadLength
		}
		r.left = r.left*10 + d
	}
	return nil
}

// codingField reads Transfer-Encoding, a list of which chunked must be the
// last (RFC 9112 6.1).
func (r *httpRequest) codingField(v []byte) *httpRefusal {
	if r.http10 {
		return httpEarlyCoding
	}
	for more := true; more; {
		var coding []byte
		coding, v, more = bytes.Cut(v, []byte{','})
		if r.chunked {
			return httpBadCoding
		}
		if r.chunked = httpIs(httpTrim(coding), "chunked"); !r.chunked {
			r.coded = true
		}
	}
	return nil
}

// headEnd decides what comes after the head (RFC 9112 6.3).
func (r *httpRequest) headEnd(t *Tunables) *httpRefusal {
	switch {
	case !r.host && !r.http10:
		return httpNoHost
	case r.length && (r.chunked || r.coded):
		return httpTwoFramings
	case r.coded && !r.chunked:
		return httpBadCoding // 400, not 501: where the body ends is unknown
	case r.coded:
		return httpOtherCoding
	case r.left > t.MaxRequestBody:
		return httpTooLarge
	}
	switch {
	case r.chunked:
		r.phase, r.room = httpChunkSize, t.MaxRequestBody
	case r.left > 0:
		r.phase = httpFixed
	default:
		r.phase = httpDone
	}
	return nil
}
