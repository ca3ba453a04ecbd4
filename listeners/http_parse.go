package listeners

import "bytes"

// httpRequest is what is known of the request being read. Lines are consumed
// as they become complete, so that a client which sends a byte at a time does
// not have its head read again for each.
//
// Where RFC 9112 lets a recipient repair a message, this one refuses it: two
// readers that repair differently are how requests are smuggled past a proxy.
// So: lines end with CRLF, never a bare LF or CR (2.2); no line folding (5.2),
// no space before a colon (5.1); exactly one space between the parts of the
// request line (3); one Content-Length, not a list, not beside a
// Transfer-Encoding (6.3); nothing but chunked as transfer coding, and not in
// HTTP/1.0 (6.1). Tolerated are empty lines before a request (2.2), and bytes
// above 127 in the target and in values.
type httpRequest struct {
	left  int64  // of the body or chunk, still to be skipped
	room  int64  // what a chunked body may still bring
	size  uint32 // of the head, with chunk extensions and trailers
	phase httpPhase

	begun     bool // more than empty lines has arrived
	isHead    bool // the method is HEAD
	http10    bool // else 1.1, or a later 1.x, which is read as 1.1
	host      bool // seen
	length    bool // Content-Length seen
	chunked   bool // last transfer coding seen
	coded     bool // another transfer coding seen
	expects   bool // 100-continue, not sent yet
	closes    bool // Connection: close
	keepAlive bool // Connection: keep-alive
}

// httpPhase is what comes next. All but httpStart and httpDone may be left and
// come back to.
//
//	Start -> Fields -+-> Fixed -----------------------------+-> Done
//	                 +-> ChunkSize -> ChunkData -> ChunkEnd |
//	                 |    |      ^-------------------'      |
//	                 |    `-(0)-> Trailers -----------------+
//	                 `--------------------------------------'
type httpPhase uint8

const (
	httpStart httpPhase = iota
	httpFields
	httpFixed
	httpChunkSize
	httpChunkData
	httpChunkEnd
	httpTrailers
	httpDone
)

// httpRefusal is why a request is not served. It ends the connection: what
// follows could be anything.
type httpRefusal struct {
	status int
	why    string
}

var (
	httpBadByte      = &httpRefusal{400, "bare CR, bare LF or another control character"}
	httpBadLine      = &httpRefusal{400, "malformed request line"}
	httpBadTarget    = &httpRefusal{400, "malformed request target"}
	httpBadField     = &httpRefusal{400, "malformed header line"}
	httpNoHost       = &httpRefusal{400, "no Host header"}
	httpTwoHosts     = &httpRefusal{400, "more than one Host header"}
	httpBadHost      = &httpRefusal{400, "malformed Host header"}
	httpBadLength    = &httpRefusal{400, "malformed Content-Length"}
	httpTwoLengths   = &httpRefusal{400, "more than one Content-Length"}
	httpTwoFramings  = &httpRefusal{400, "Content-Length beside Transfer-Encoding"}
	httpBadCoding    = &httpRefusal{400, "Transfer-Encoding does not end with one chunked"}
	httpEarlyCoding  = &httpRefusal{400, "Transfer-Encoding in HTTP/1.0"}
	httpBadChunk     = &httpRefusal{400, "malformed chunk"}
	httpTooSlow      = &httpRefusal{408, "the request did not arrive in time"}
	httpTooLarge     = &httpRefusal{413, "the request body is too large"}
	httpLineTooLong  = &httpRefusal{414, "the request line is too long"}
	httpBadExpect    = &httpRefusal{417, "the only expectation met is 100-continue"}
	httpHeadTooLarge = &httpRefusal{431, "the request head is too large"}
	httpNoTunnel     = &httpRefusal{501, "CONNECT is not served"}
	httpOtherCoding  = &httpRefusal{501, "the only transfer coding served is chunked"}
	httpOtherVersion = &httpRefusal{505, "the versions served are HTTP/1.0 and HTTP/1.1"}
)

// read consumes as much of one request as p has of it; phase is httpDone when
// that is all. What it leaves is less than a line.
func (r *httpRequest) read(p []byte, t *Tunables) (n int, refusal *httpRefusal) {
	for r.phase != httpDone && refusal == nil && n < len(p) {
		rest := p[n:]
		if r.phase == httpFixed || r.phase == httpChunkData || r.phase == httpChunkEnd {
			var k int
			k, refusal = r.skip(rest)
			n += k
			continue
		}
		end := httpScan(rest, ' ')
		last := end // the byte that decides
		if end < len(rest) && rest[end] == '\r' {
			last++
		}
		// A line may be refused before it is complete, but only for bytes
		// that are here: so it makes no difference how a request is split.
		room := r.lineRoom(t)
		switch {
		case int64(last) >= room:
			return n, r.tooLong()
		case last == len(rest):
			r.begun = r.begun || r.phase == httpStart && end > 0
			return n, nil
		case last == end || rest[last] != '\n':
			return n, httpBadByte
		}
		n += last + 1
		r.size += uint32(r.cost(last + 1))
		refusal = r.line(rest[:end], t)
		if r.phase > httpFields && n < len(p) {
			r.expects = false // RFC 9110 10.1.1: the body is here already
		}
	}
	return n, refusal
}

// A chunk's size line only counts as far as it is longer than the longest
// size, else a long body could not come in small chunks.
const httpChunkLine = httpChunkDigits + len("\r\n")

// lineRoom is how long the present line may be.
func (r *httpRequest) lineRoom(t *Tunables) int64 {
	room := t.ReadBuffer - int64(r.size)
	if r.phase == httpChunkSize {
		room += int64(httpChunkLine)
	}
	return room
}

// cost is how much a line of n bytes adds to size.
func (r *httpRequest) cost(n int) int {
	if r.phase == httpChunkSize {
		return max(0, n-httpChunkLine)
	}
	return n
}

func (r *httpRequest) tooLong() *httpRefusal {
	if r.phase == httpStart {
		return httpLineTooLong
	}
	return httpHeadTooLarge
}

// line reads one line, without its end.
func (r *httpRequest) line(line []byte, t *Tunables) *httpRefusal {
	switch {
	case r.phase == httpChunkSize:
		return r.chunkSize(line)
	case len(line) > 0 && r.phase == httpStart:
		return r.requestLine(line)
	case len(line) > 0 && r.phase == httpFields:
		return r.field(line)
	case len(line) > 0: // a trailer: well formed, but nothing is made of it
		if _, _, ok := httpField(line); !ok {
			return httpBadField
		}
	case r.phase == httpFields:
		return r.headEnd(t)
	case r.phase == httpTrailers:
		r.phase = httpDone
	}
	return nil // httpStart: an empty line before the request
}

// requestLine reads method SP request-target SP HTTP-version (RFC 9112 3).
func (r *httpRequest) requestLine(line []byte) *httpRefusal {
	r.begun = true
	m := 0
	for m < len(line) && httpClass[line[m]]&httpTokenByte != 0 {
		m++
	}
	v := len(line) - len(" HTTP/1.1")
	if m == 0 || v <= m+1 || line[m] != ' ' || line[v] != ' ' {
		return httpBadLine
	}
	method, target, version := line[:m], line[m+1:v], line[v+1:]
	switch {
	case string(version) == "HTTP/1.1":
	case string(version[:5]) != "HTTP/" || !httpDigit(version[5]) || version[6] != '.' || !httpDigit(version[7]):
		return httpBadLine
	case version[5] != '1':
		return httpOtherVersion
	case version[7] == '0':
		r.http10 = true
	}
	if httpScan(target, '!') < len(target) {
		return httpBadTarget
	}
	switch {
	case string(method) == "CONNECT":
		// A 2xx would make this a tunnel (RFC 9110 9.3.6), a 405 needs Allow.
		return httpNoTunnel
	case target[0] != '/' && !httpOtherTarget(target):
		return httpBadTarget
	}
	r.isHead = string(method) == "HEAD"
	r.phase = httpFields
	return nil
}

// httpOtherTarget reports whether target, which is no path, is * or starts
// like a URI (RFC 9112 3.2).
func httpOtherTarget(target []byte) bool {
	if len(target) == 1 && target[0] == '*' {
		return true
	}
	scheme, _, ok := bytes.Cut(target, []byte{':'})
	return ok && len(scheme) > 0 && scheme[0]|0x20 >= 'a' && scheme[0]|0x20 <= 'z' && httpToken(scheme)
}
