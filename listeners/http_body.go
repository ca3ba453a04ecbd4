package listeners

// Bodies are skipped, never kept (RFC 9112 6 and 7.1).

// httpChunkDigits is the most digits of a chunk's size: those of 64 bits.
const httpChunkDigits = 16

// skip consumes what p, which is not empty, has of the present body, chunk or
// chunk's end.
func (r *httpRequest) skip(p []byte) (int, *httpRefusal) {
	if r.phase == httpChunkEnd {
		// Byte by byte: a chunk longer than its size is found out at once.
		if p[0] != "\n\r"[r.left-1] {
			return 0, httpBadChunk
		}
		p = p[:1]
	}
	n := min(r.left, int64(len(p)))
	if r.left -= n; r.left > 0 {
		return int(n), nil
	}
	next := [...]httpPhase{httpFixed: httpDone, httpChunkData: httpChunkEnd, httpChunkEnd: httpChunkSize}
	r.phase = next[r.phase]
	if r.phase == httpChunkEnd {
		r.left = int64(len("\r\n"))
	}
	return int(n), nil
}

// chunkSize reads chunk-size [ chunk-ext ]. Extensions are not understood and
// so ignored, as RFC 9112 7.1.1 wants.
func (r *httpRequest) chunkSize(line []byte) *httpRefusal {
	var size uint64
	i := 0
	for i < len(line) && i < httpChunkDigits {
		d, ok := httpHex(line[i])
		if !ok {
			break
		}
		size = size<<4 | d
		i++
	}
	if ext := httpTrim(line[i:]); i == 0 || len(line) > i && (len(ext) == 0 || ext[0] != ';') {
		return httpBadChunk
	}
	switch {
	case size == 0:
		r.phase = httpTrailers
	case size > uint64(max(0, r.room)):
		return httpTooLarge
	default:
		r.phase, r.left = httpChunkData, int64(size)
		r.room -= r.left
	}
	return nil
}

func httpHex(b byte) (uint64, bool) {
	switch {
	case httpDigit(b):
		return uint64(b - '0'), true
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return uint64(b|0x20-'a') + 10, true
	}
	return 0, false
}
