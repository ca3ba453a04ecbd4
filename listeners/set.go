package listeners

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A Set is what the listeners of one loop share. Its methods are for the loop
// only.
type Set struct {
	loop    *mux.Loop
	log     hclog.Logger
	changed func(*Listener)
	watcher ConnWatcher // nil: nobody watches

	info     unix.TCPInfo  // see conn.tcpInfo
	rttAsked time.Duration // the turn in which the round trip of an ended connection was read
	buf      []byte        // what is read lands here; valid during one call of a handler
	batch    *batch        // for datagrams; made with the first datagram socket

	pipes []*pipe // empty ones, for flows that are spliced

	upstream func(l *Listener, u UpstreamStatus, why string) // nil: nobody is told

	ctx     context.Context // of what is looked up off the loop
	cancel  context.CancelFunc
	offLoop sync.WaitGroup

	offered func(*Listener) // see Offers

	lost func(*Listener, Address) // nil: nobody is told

	stirred []*Listener // at which something has happened: see Stirred

	starter  starter                                                           // of programs
	kept     *Kept                                                             // set once in NewSet; nil: nobody keeps anything
	orphans  map[int]int                                                       // programs that have moved, and are to be reaped here: pids by their descriptors
	strays   map[*process]bool                                                 // programs of a daemon that was killed: they are ended
	resolve  func(*Exec) (*Exec, error)                                        // set once in NewSet
	failing  func(l *Listener, why string, pause time.Duration)                // nil: nobody is told
	panicked func(l *Listener, what string, total uint64, pause time.Duration) // nil: nobody is told

	rechecks  []*Listener // whose options are looked at when there is time: see recheck
	restoring bool        // there is none

	durables *durables // nil: nobody keeps anything

	metadata bool                   // set once in NewSet
	reserved func(path string) bool // nil: nothing is
	udpPorts *[1 << 16]int32        // how many of our own datagram sockets each port has: see answerTo; nil: none yet
	outlets  map[outlet]*hop        // of sockets to upstreams
	answers  answerTable
	slow     slow

	// More than one loop: see workers.go.
	number  int                // of the loop; the first is 0
	first   *Set               // of the first loop, whose worker this one is; nil: it is the first itself
	workers []*worker          // of the first; none: there is one loop
	home    bool               // nothing is given to workers for now: see CallHome
	open    int64              // connections on all loops; the first counts
	load    load               // of the first
	asked   time.Duration      // when the loops were asked how busy they are
	sharded map[*Listener]bool // those that have shards; the first's

	used     int // descriptors of listeners and connections
	limit    int // most of them
	hungry   []*streamSocket
	starved  func(l *Listener, why error, used int) // nil: nobody is told
	told     time.Duration                          // when it was told last; 0: never
	retry    time.Duration                          // until the hungry try again
	retryOne mux.Timer
}

// SetConfig says what NewSet needs.
type SetConfig struct {
	Loop *mux.Loop
	Log  hclog.Logger
	// Descriptors is the most that listeners and connections may use; 0 is no
	// limit but the kernel's.
	Descriptors int
	// Changed is called on the loop when the state of a listener changed. It
	// must not block.
	Changed func(*Listener)
	// Upstream is called on the loop when an upstream of a listener went down,
	// and why, or came back. It must not block. It may be nil.
	Upstream func(l *Listener, u UpstreamStatus, why string)
	// Failing is called on the loop when the programs of a listener fail so
	// often that none is started for a while. It must not block. It may be nil.
	Failing func(l *Listener, why string, pause time.Duration)
	// Panicked is called on the loop when the handler of a listener has panicked,
	// at most once a minute, with how often it has so far; and when the listener
	// accepts nothing for a pause because of that. It must not block. It may be nil.
	Panicked func(l *Listener, what string, total uint64, pause time.Duration)
	// Starved is called on the loop when a connection of l cannot be accepted for
	// now, for want of a descriptor or memory, at most once a minute, with how many
	// descriptors listeners and connections have. It must not block. It may be nil.
	Starved func(l *Listener, why error, used int)
	// WriteBuffer is the most bytes that are kept for all peers together that do
	// not read; 0 is no limit.
	WriteBuffer int64
	// Slow is called on the loop when connections of a listener were ended because
	// their peers do not read, at most once a minute, with how many so far, and why
	// the last was. It must not block. It may be nil.
	Slow func(l *Listener, ended uint64, why CloseReason)
	// Resolve returns what is to be run for an exec handler, each time before it
	// is, or why that is not allowed. nil: what it says itself.
	Resolve func(*Exec) (*Exec, error)
	// Kept has what came back of durable connections; see Recover. It may be nil.
	Kept *Kept
	// Metadata lets connect to addresses of cloud metadata: see MayConnect.
	Metadata bool
	// Reserved reports paths of Unix sockets that nothing is sent to for others:
	// see MayConnect. It may be nil.
	Reserved func(path string) bool
	// Lost is called on the loop when a socket of a listener was shut from
	// outside. It must not block. It may be nil.
	Lost func(l *Listener, a Address)
}

// NewSet returns an empty Set.
func NewSet(c SetConfig) *Set {
	s := &Set{
		loop: c.Loop, log: c.Log, changed: c.Changed, upstream: c.Upstream, failing: c.Failing, panicked: c.Panicked, lost: c.Lost, limit: c.Descriptors, metadata: c.Metadata, reserved: c.Reserved, resolve: c.Resolve,
		kept: c.Kept, orphans: map[int]int{}, strays: map[*process]bool{}, buf: make([]byte, 64<<10), outlets: map[outlet]*hop{},
	}
	s.starved = c.Starved
	s.slow.set, s.slow.all, s.slow.most, s.slow.tell = s, c.WriteBuffer, c.WriteBuffer, c.Slow
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if c.Kept != nil {
		s.durables = newDurables(s, c.Kept)
	}
	return s
}

// Close waits for what was begun off the loop, and closes what was kept for
// later use. The loop has ended, and all listeners are closed.
func (s *Set) Close() {
	s.cancel()
	s.offLoop.Wait()
	for _, p := range s.pipes {
		p.close()
	}
	s.pipes = nil
	s.closePrograms()
	if s.durables != nil {
		s.durables.close()
	}
}

// Waits before accepting again after the process ran out of descriptors.
const (
	retryLeast = 10 * time.Millisecond
	retryMost  = time.Second

	starvedTold = time.Minute // one word of it in this time
)

// full reports whether another descriptor would go over the limit.
func (s *Set) full() bool { return s.limit > 0 && s.used >= s.limit }

// starve takes a socket off the loop for which there is no descriptor, memory
// or leave to accept a connection: level-triggered, it would be reported for
// ever. Its connections wait in the kernel until something closes, or until
// the retry time has passed, which doubles.
func (s *Set) starve(sock *streamSocket, why error) {
	sock.rest()
	s.hungry = append(s.hungry, sock)
	if s.retryOne.Set() {
		return
	}
	s.retry = min(max(2*s.retry, retryLeast), retryMost)
	if now := s.loop.Clock(); s.retry == retryLeast && (s.told == 0 || now-s.told >= starvedTold) {
		s.told = now
		if s.starved != nil {
			s.starved(sock.l, why, s.used)
		}
		s.log.Warn("cannot accept for now; connections wait in the kernel", "listener", sock.l.Name, "error", why, "descriptors", s.used, "limit", s.limit)
	}
	s.loop.Arm(&s.retryOne, s.loop.Clock()+s.retry, s)
}

// Expired lets the hungry try again.
func (s *Set) Expired() {
	hungry := s.hungry
	s.hungry = nil
	for _, sock := range hungry {
		sock.rise()
	}
}

// released is called for every descriptor that was closed.
func (s *Set) released() {
	s.used--
	if len(s.hungry) > 0 && !s.full() {
		s.retry = 0
		s.loop.Arm(&s.retryOne, s.loop.Clock(), s) // the next turn
	}
}

// sweepBudget is how many slots of the descriptor table one turn looks at.
const sweepBudget = 4096

// sweepCalls is how many connections one turn of a sweep does something to: to
// close one takes up to 12 us.
const sweepCalls = 64

// sweep calls f for every open connection of l, nil: of all listeners, a bounded number a turn, then
// done. Connections that open meanwhile may be left out.
func (s *Set) sweep(l *Listener, f func(*conn), done func()) {
	s.sweepFrom(0, l, f, done)
}

func (s *Set) sweepFrom(fd int, l *Listener, f func(*conn), done func()) {
	end := min(fd+sweepBudget, s.loop.Span())
	for calls := 0; fd < end && calls < sweepCalls; fd++ {
		if c, ok := s.loop.HandlerOf(fd).(*conn); ok && (c.l == l || l == nil) {
			f(c)
			calls++
		}
	}
	if fd < s.loop.Span() && s.loop.Post(func() { s.sweepFrom(fd, l, f, done) }) == nil {
		return
	}
	done()
}

// ConnQuery selects connections.
type ConnQuery struct {
	Listener string    // of the named one only, unless it is empty
	Since    time.Time // that moved a byte since then, or are about to end
	Detail   Detail
}

// Conns copies the status of up to most connections at descriptors from `from`
// on, and returns the descriptor to go on from; -1 at the end. It looks at a
// bounded number of descriptors.
func (s *Set) Conns(q ConnQuery, from, most int) (conns []ConnStatus, next int) {
	end := min(from+sweepBudget, s.loop.Span())
	since := q.Since.Sub(s.loop.Time(0)) // on the loop's clock
	for fd := from; fd < end; fd++ {
		c, ok := s.loop.HandlerOf(fd).(*conn)
		if !ok || q.Listener != "" && c.l.Name != q.Listener || c.active < since && !c.is(eof|done) {
			continue
		}
		if len(conns) == most {
			return conns, fd
		}
		if conns == nil {
			conns = make([]ConnStatus, 0, most) // one piece: to grow takes longer than to ask the kernel
		}
		conns = append(conns, c.status(q.Detail))
	}
	if end == s.loop.Span() {
		end = -1
	}
	return conns, end
}

// CloseConn closes the connection if it is still the one with that cookie. With
// reset the peer gets RST and unsent bytes are lost. Otherwise they are sent: it
// is ConnClosing until the peer has taken what is owed, at most for 2 s.
func (s *Set) CloseConn(fd int, cookie uint64, reset bool) bool {
	c := s.connAt(fd, cookie)
	if c == nil {
		return false
	}
	if reset {
		c.reset(errClosedByRequest)
	} else {
		c.finish(errClosedByRequest)
	}
	return true
}

// RetireConn tells the handler of the connection to end it as soon as it loses
// nothing by that. Handlers that are no Drainer do not know when that is.
// It reports whether the connection is there.
func (s *Set) RetireConn(fd int, cookie uint64) bool {
	c := s.connAt(fd, cookie)
	if c != nil {
		c.because(ClosedByRequest)
		c.retire(s.loop.Clock()+1, maxDrain)
	}
	return c != nil
}

// IsOpen reports whether the connection is still the one with that cookie.
func (s *Set) IsOpen(fd int, cookie uint64) bool { return s.connAt(fd, cookie) != nil }

// connAt is nil when the descriptor is not that connection's any more.
func (s *Set) connAt(fd int, cookie uint64) *conn {
	c, _ := s.loop.HandlerOf(fd).(*conn)
	if c == nil || c.cookie() != cookie {
		return nil
	}
	return c
}
