package service

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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

	calls, sockets *rate

	// Of the goroutine that reads.
	fresh int       // calls that the last read has begun
	since time.Time // every read has had to wait
	told  bool
}

func newPace(p *process) *pace {
	closed := make(chan struct{})
	return &pace{
		process: p, closed: closed, end: sync.OnceFunc(func() { close(closed) }),
		calls: newRate(callRate, callRate), sockets: newRate(socketRate, socketRate),
		fresh: fewCalls + 1, // nobody knows yet
	}
}

// began counts a call that has begun.
func (p *pace) began(method string) {
	p.fresh++
	if strings.HasPrefix(method, socketMethods) {
		p.sockets.take()
	} else {
		p.calls.take()
	}
	p.process.calls.take()
}

// gaveUp counts one that the client has reset.
func (p *pace) gaveUp() { p.process.resets.take() }

// wasted counts one that ran when it was given up.
func (p *pace) wasted() { p.process.waste.take() }

// next waits until more may be read, and returns how many of so many bytes.
func (p *pace) next(bytes int) int {
	flood := p.fresh > fewCalls
	p.fresh = 0
	switch wait, why := p.owes(); {
	case wait > 0:
		p.slow(why)
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.closed:
		}
		return min(bytes, smallRead)
	case flood:
		runtime.Gosched() // what has begun goes first, and so do other clients
		bytes = min(bytes, smallRead)
	}
	p.since = time.Time{}
	return bytes
}

// slow tells of a client whose every read has waited for some time.
func (p *pace) slow(why string) {
	now := time.Now()
	switch {
	case p.since.IsZero():
		p.since = now
	case !p.told && p.tell != nil && now.Sub(p.since) >= slowTime:
		p.told = true
		p.tell(why)
	}
}

// owes is how long nothing is read, and for what.
func (p *pace) owes() (wait time.Duration, why string) {
	for _, one := range [...]struct {
		r   *rate
		why string
	}{
		{p.calls, tooManyCalls},
		{p.sockets, tooManySockets},
		{p.process.calls, tooManyOfAll},
		{p.process.resets, tooManyResets},
		{p.process.waste, tooManyWasted},
	} {
		if w := one.r.wait(); w > wait {
			wait, why = w, one.why
		}
	}
	return wait, why
}

// A process is one at the other end, with all its connections; or all that have
// one certificate.
type process struct {
	conns int // open ones; those of conns.mu

	calls, resets, waste *rate
}

func newProcess() *process {
	return &process{calls: newRate(processRate, processBurst), resets: newRate(resetRate, resetBurst), waste: newRate(wasteRate, wasteRate)}
}

// owes reports whether it does.
func (p *process) owes() bool { return p.calls.wait() > 0 || p.resets.wait() > 0 || p.waste.wait() > 0 }

// A rate is a bucket that has so much at most, and may owe. It is filled when it
// owes, and not before: what is taken costs next to nothing. So who takes little
// for long may have twice as much at once.
type rate struct {
	perSecond, burst int64
	left             atomic.Int64

	mu sync.Mutex
	at time.Time // it was filled
}

func newRate(perSecond, burst int64) *rate {
	r := &rate{perSecond: perSecond, burst: burst, at: time.Now()}
	r.left.Store(burst)
	return r
}

func (r *rate) take() { r.left.Add(-1) }

// wait is how long until it owes nothing.
func (r *rate) wait() time.Duration {
	if r.left.Load() >= 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	each := time.Second / time.Duration(r.perSecond)
	left := r.left.Load()
	n := int64(time.Since(r.at) / each)
	r.at = r.at.Add(time.Duration(n) * each) // what is not a whole one yet counts the next time
	left = r.left.Add(min(n, r.burst-left))
	return max(0, time.Duration(-left)*each)
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
