package service

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
)

// How fast control connections are read, in a second. Calls that come faster wait
// in the kernel, and then in the client: none is refused.
const (
	callRate    = 5000   // new calls of one connection, but for SocketService
	socketRate  = 50000  // and of that
	processRate = 100000 // both, of all connections of one process
	resetRate   = 5000   // calls that it gives up
	wasteRate   = 500    // of those, but for SocketService, that ran: nothing comes of what they cost

	processBurst = 10000
	resetBurst   = 1000

	fewCalls  = 64          // begun by what one read gave: no flood
	smallRead = 4 << 10     // bytes at a time of a flood
	slowTime  = time.Second // a client that is too fast for so long is told of
)

// What a client does too fast.
var (
	tooManyCalls   = fmt.Sprintf("more than %d calls in a second on one connection", callRate)
	tooManySockets = fmt.Sprintf("more than %d calls of SocketService in a second on one connection", socketRate)
	tooManyOfAll   = fmt.Sprintf("more than %d calls in a second of one process", processRate)
	tooManyWasted  = fmt.Sprintf("more than %d calls in a second that one process gives up while they run", wasteRate)
	tooManyResets  = fmt.Sprintf("more than %d calls in a second that one process gives up", resetRate)
)

// A pace keeps a client from beginning more than it may. gRPC makes a goroutine
// for each stream that it reads of, and forgets the stream when it is reset:
// without waiting for an answer, a client has any number of them run. What is not
// read yet begins nothing, and costs the client's memory.
type pace struct {
	process *process
	tell    func(why string) // once, of a client that is too fast
	closed  chan struct{}
	end     func()

	mu             sync.Mutex
	calls, sockets rate
	fresh          int       // calls that the last read has begun
	since          time.Time // every read has had to wait
	told           bool
}

func newPace(p *process) *pace {
	closed := make(chan struct{})
	return &pace{
		process: p, closed: closed, end: sync.OnceFunc(func() { close(closed) }),
		calls: rate{perSecond: callRate, burst: callRate}, sockets: rate{perSecond: socketRate, burst: socketRate},
		fresh: fewCalls + 1, // nobody knows yet
	}
}

// began counts a call that has begun.
func (p *pace) began(method string) {
	now := time.Now()
	p.mu.Lock()
	p.fresh++
	r := &p.calls
	if strings.HasPrefix(method, socketMethods) {
		r = &p.sockets
	}
	r.take(now)
	p.mu.Unlock()
	p.process.took(&p.process.calls, now)
}

// gaveUp counts one that the client has reset.
func (p *pace) gaveUp() { p.process.took(&p.process.resets, time.Now()) }

// wasted counts one that ran when it was given up.
func (p *pace) wasted() { p.process.took(&p.process.waste, time.Now()) }

// next waits until more may be read, and returns how many of so many bytes.
func (p *pace) next(bytes int) int {
	now := time.Now()
	wait, why := p.process.wait(now)
	p.mu.Lock()
	if w := p.calls.wait(now); w > wait {
		wait, why = w, tooManyCalls
	}
	if w := p.sockets.wait(now); w > wait {
		wait, why = w, tooManySockets
	}
	flood, tell := p.fresh > fewCalls, false
	p.fresh = 0
	switch {
	case wait == 0:
		p.since = time.Time{}
	case p.since.IsZero():
		p.since = now
	case !p.told && now.Sub(p.since) >= slowTime:
		p.told, tell = true, true
	}
	p.mu.Unlock()
	if tell && p.tell != nil {
		p.tell(why)
	}
	switch {
	case wait > 0:
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.closed:
		}
	case flood:
		runtime.Gosched() // what has begun goes first, and so do other clients
	default:
		return bytes
	}
	return min(bytes, smallRead)
}

// A process is one at the other end, with all its connections; or all that have
// one certificate.
type process struct {
	conns int // open ones; those of conns.mu

	mu                   sync.Mutex
	calls, resets, waste rate
}

func newProcess() *process {
	return &process{
		calls: rate{perSecond: processRate, burst: processBurst}, resets: rate{perSecond: resetRate, burst: resetBurst},
		waste: rate{perSecond: wasteRate, burst: wasteRate},
	}
}

func (p *process) took(r *rate, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.take(now)
}

func (p *process) wait(now time.Time) (wait time.Duration, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait, why = p.calls.wait(now), tooManyOfAll
	if w := p.resets.wait(now); w > wait {
		wait, why = w, tooManyResets
	}
	if w := p.waste.wait(now); w > wait {
		wait, why = w, tooManyWasted
	}
	return wait, why
}

// rate is a bucket that has so much at most, and may owe.
type rate struct {
	perSecond, burst float64
	left             float64
	at               time.Time
}

func (r *rate) fill(now time.Time) {
	if r.at.IsZero() {
		r.left = r.burst
	} else {
		r.left = min(r.burst, r.left+r.perSecond*max(0, now.Sub(r.at).Seconds()))
	}
	r.at = now
}

func (r *rate) take(now time.Time) {
	r.fill(now)
	r.left--
}

// wait is how long until it owes nothing.
func (r *rate) wait(now time.Time) time.Duration {
	if r.left >= 0 {
		return 0
	}
	r.fill(now)
	return max(0, time.Duration(-r.left/r.perSecond*float64(time.Second)))
}

// count sees every new stream where frames are read, and must not wait there: the
// next read does.
func count(ctx context.Context, info *tap.Info) (context.Context, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(caller); ok && c.used != nil {
			c.used.pace.began(info.FullMethodName)
		}
	}
	return ctx, nil
}
