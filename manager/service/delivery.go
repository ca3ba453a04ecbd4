package service

import (
	"context"
	"encoding/binary"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// How long, and how much, a control connection remembers of what it answered.
const (
	undoTime  = 5 * time.Second // a client that gives a call up says so within a round trip
	undoBytes = 1 << 20         // beside the last answer
	undoCalls = 256
)

// An answer is one that gRPC may not have delivered yet.
type answer struct {
	stream   uint32
	withdraw func()
	at       time.Time
	bytes    int
	sent     bool // whole: only the client can say that it did not want it any more
}

// answers are the calls of one control connection that took something, until
// their answers have come for certain. A call that its client gives up in the
// moment in which it is answered is over for gRPC, which drops the answer and
// tells nobody; only the RST_STREAM of the client does. So the connection is
// listened to.
type answers struct {
	mu    sync.Mutex
	open  map[uint32]func() // streams of calls without an answer yet: withdraw
	last  []answer          // oldest first
	bytes int
	timer *time.Timer // runs while there are any
	ended bool

	reset [undoCalls]uint32 // streams given up last: their calls may begin yet
	next  int
}

// begin is that a call may take something.
func (a *answers) begin(stream uint32, withdraw func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.reset[:], stream) {
		withdraw()
		return
	}
	if a.open == nil {
		a.open = map[uint32]func(){}
	}
	a.open[stream] = withdraw
}

// answered is that it ends, with so many bytes, or -1 when nothing was taken.
func (a *answers) answered(stream uint32, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	withdraw, ok := a.open[stream]
	if delete(a.open, stream); !ok || n < 0 || a.ended {
		return
	}
	a.last = append(a.last, answer{stream: stream, withdraw: withdraw, at: time.Now(), bytes: n})
	a.bytes += n
	for len(a.last) > undoCalls || len(a.last) > 1 && a.bytes-n > undoBytes {
		a.drop(1)
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(undoTime, a.forget)
	}
}

// drop takes the oldest out.
func (a *answers) drop(n int) {
	for _, old := range a.last[:n] {
		a.bytes -= old.bytes
	}
	a.last = slices.Delete(a.last, 0, n) // which lets go of what they hold
}

// forget drops what is old.
func (a *answers) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := slices.IndexFunc(a.last, func(one answer) bool { return time.Since(one.at) < undoTime })
	if a.timer = nil; old < 0 {
		a.drop(len(a.last))
		return
	}
	a.drop(old)
	a.timer = time.AfterFunc(undoTime-time.Since(a.last[0].at), a.forget)
}

// sent is that the end of an answer goes to the client.
func (a *answers) sent(stream uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := a.find(stream); i >= 0 {
		a.last[i].sent = true
	}
}

func (a *answers) find(stream uint32) int {
	return slices.IndexFunc(a.last, func(one answer) bool { return one.stream == stream })
}

// dropped is that gRPC ends a stream by itself, as it does when the deadline of
// a call has passed here: also when all of the answer is on its way.
func (a *answers) dropped(stream uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := a.find(stream); i < 0 || !a.last[i].sent {
		a.withdraw(stream)
	}
}

// givenUp withdraws the call of a stream. Calls that the client makes later find
// what it took: they are read later.
func (a *answers) givenUp(stream uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.withdraw(stream)
}

func (a *answers) withdraw(stream uint32) {
	a.reset[a.next%undoCalls] = stream
	a.next++
	if withdraw, ok := a.open[stream]; ok {
		delete(a.open, stream)
		withdraw()
	}
	if i := a.find(stream); i >= 0 {
		a.last[i].withdraw()
		a.bytes -= a.last[i].bytes
		a.last = slices.Delete(a.last, i, i+1)
	}
}

func (a *answers) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if a.drop(len(a.last)); a.timer != nil {
		a.timer.Stop()
	}
}

// A heard connection tells its answers of every RST_STREAM (RFC 9113, 6.4): of
// the client's before gRPC reads it, and of gRPC's own, when the deadline of a
// call has passed here, before the client does.
type heard struct {
	net.Conn
	answers *answers
	pace    *pace
	in, out frames
}

func newHeard(conn net.Conn, p *pace) *heard {
	return &heard{Conn: conn, answers: &answers{}, pace: p, in: frames{skip: preface}}
}

// Read is net.Conn.Read.
func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p[:h.pace.next(len(p))])
	h.in.see(p[:n], h.gaveUp, nil)
	return n, err
}

func (h *heard) gaveUp(stream uint32) {
	h.answers.givenUp(stream)
	h.pace.gaveUp()
}

// Write is net.Conn.Write.
func (h *heard) Write(p []byte) (int, error) {
	h.out.see(p, h.answers.dropped, h.answers.sent)
	return h.Conn.Write(p)
}

// frames finds what ends streams among the frames of one direction, which come
// in pieces.
type frames struct {
	head [9]byte // of a frame, as far as it has come
	have int
	skip int // bytes up to the next head
}

const (
	preface   = 24 // bytes before the client's first frame
	headers   = 1
	rstStream = 3
	endStream = 1 // flag: the last of the stream
)

// see tells of each RST_STREAM, and of headers that are the end of an answer.
func (f *frames) see(p []byte, reset, end func(stream uint32)) {
	for len(p) > 0 {
		if f.skip > 0 {
			k := min(f.skip, len(p))
			f.skip, p = f.skip-k, p[k:]
			continue
		}
		k := copy(f.head[f.have:], p)
		if f.have, p = f.have+k, p[k:]; f.have < len(f.head) {
			return
		}
		f.have = 0
		f.skip = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
		stream := binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1)
		switch {
		case f.head[3] == rstStream:
			reset(stream)
		case f.head[3] == headers && f.head[4]&endStream != 0 && end != nil:
			end(stream)
		}
	}
}

// Close is net.Conn.Close.
func (h *heard) Close() error {
	h.answers.end()
	h.pace.end()
	return h.Conn.Close()
}

// streamOf is the number of the HTTP/2 stream of a call, which gRPC has and does
// not show; 0 when it cannot be found, which a test would notice.
func streamOf(ctx context.Context) uint32 {
	v := reflect.ValueOf(grpc.ServerTransportStreamFromContext(ctx))
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return 0
	}
	if id := v.Elem().FieldByName("id"); id.IsValid() && id.Kind() == reflect.Uint32 {
		return uint32(id.Uint())
	}
	return 0
}
