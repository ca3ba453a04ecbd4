package listeners

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

// A Listener is a set of bound sockets and the connections accepted from them.
// After Attach everything in it but Name belongs to the loop.
type Listener struct {
	Name string

	spec      Spec
	tunables  Tunables
	shown     atomic.Pointer[Tunables] // a copy, for goroutines
	handler   Handler
	tls       *TLSServer // nil: it is not terminated
	newTLS    *TLSServer // with Settle, if that asks for it
	endpoints []endpoint
	twins     []endpoint // that came back beside others, and are to leave
	leaving   []endpoint // at addresses that were let go; some accept what waited there
	retired   []*retired // those of leaving that others took the place of
	set       *Set
	stats     *Counters
	stirred   bool // it is among those of set
	state     State
	active    int64     // open connections
	onConn    []setting // what accepted connections do not have from the listener's socket
	lingers   bool      // SO_LINGER is or was on: what is queued has it from that time
	paused    PauseMode
	drain     drain
	loopTold  time.Duration          // when tellLoop logged
	origins   map[netip.Addr]*origin // while max_connections_per_source is set
	counted   originRule             // what they are counted by
	paced     rates                  // of bytes
	faults    Faults                 // in force; zero: none
	gates     *[directions]gate      // while there was such a rate for all together
	throttle  *throttle              // while accept_rate is set
	deadline  mux.Timer              // of its lame-duck time, then of the drain
	passed    bool                   // a program has the sockets, or is about to: see executor
	failing   string                 // why it accepts nothing for now: its programs, or its handler, fail so often
	tryAgain  *mux.Timer             // set while it is failing
	panics    *panics                // nil: its handler never did
	stalls    *stalls                // nil: there never was one

	whole   *Listener    // whose shard it is; nil: it is none. See shard.go
	shards  []*Listener  // on other loops, by their number less one; nil: there was no need of that one yet
	spreads spreading    // whether other loops serve its connections
	handed  uint64       // connections that were given to them
	former  *httpHandler // of connections that have moved, and began before the listener had another

	configured config // of the handler, once somebody has asked
}

// An endpoint is one socket of a listener, on the loop.
type endpoint interface {
	sock() *socket
	pause(mode PauseMode) error // or resume, with NotPaused; when it fails nothing has changed
	stuck() bool                // it cannot be resumed: a new socket must take its place
	retire()                    // another has the address: go on until stop
	stop()                      // wait no more and close, without losing what has arrived
	status(q Queue, mem Memory) SocketStatus
}

// Spec returns what the listener was made from, and tuned to.
func (l *Listener) Spec() Spec { return l.spec }

// Active returns the number of open connections.
func (l *Listener) Active() int64 { return l.active }

// State returns where the listener is in its life.
func (l *Listener) State() State { return l.state }

// Holds reports whether one of the sockets has the inode. Loop only.
func (l *Listener) Holds(inode string) bool {
	for _, e := range l.endpoints {
		if strconv.FormatUint(e.sock().number(), 10) == inode {
			return true
		}
	}
	return false
}

// Attach puts the listener on the loop of set, which owns it from here on, and
// counts into counters. When it fails the listener is the caller's as before.
func (l *Listener) Attach(set *Set, counters *Counters) error {
	if err := set.hasRoom(l); err != nil {
		return err
	}
	l.set, l.stats = set, counters
	for i, e := range l.endpoints {
		if err := set.loop.Add(e.sock().fd, mux.Readable, e.(mux.Handler)); err != nil {
			for _, e := range l.endpoints[:i] {
				_ = set.loop.Remove(e.sock().fd)
			}
			l.set = nil
			return attachFault(l.Name, err)
		}
	}
	if slices.ContainsFunc(l.endpoints, func(e endpoint) bool { return e.sock().back != nil }) {
		set.recheck(l)
	}
	for _, e := range l.endpoints {
		l.joined(e)
	}
	l.attachTwins()
	l.prepareConns()
	l.show()
	if a, ok := l.handler.(Attacher); ok {
		a.Attach(l, nil)
	}
	l.counted, l.paced = l.tunables.originRule(), l.tunables.rates()
	l.refault()
	l.openGates()
	l.reshard()
	l.to(Running)
	return nil
}

// setHandler makes h serve what comes from now on.
func (l *Listener) setHandler(h Handler) {
	before, passed := l.handler, l.passer() != nil
	l.calmDown()
	if x, ok := h.(*executor); ok && x.spec.PassListener && !passed {
		l.gather(false)
	}
	l.handler = h
	if passed && l.passer() == nil {
		l.gather(true)
	}
	if a, ok := h.(Attacher); ok {
		a.Attach(l, inner(before))
	}
	if a, ok := before.(Attacher); ok {
		a.Detach()
	}
}

// hasRoom reports whether the sockets of l fit in the limit of descriptors.
func (s *Set) hasRoom(l *Listener) error {
	if s.limit == 0 || s.used+len(l.endpoints) <= s.limit {
		return nil
	}
	return &Fault{
		Reason:  LimitReached,
		Message: fmt.Sprintf("%s: the daemon's limit of %d descriptors is reached", l.Name, s.limit),
		Fix:     "raise LimitNOFILE of the daemon, or stop what is not needed",
	}
}

func attachFault(name string, err error) error {
	if errors.Is(err, mux.ErrFDRange) {
		return &Fault{Reason: LimitReached, Message: name + ": no descriptor is left that select(2) can take", Err: err, Fix: "run the daemon with --poller epoll"}
	}
	return named(name, err)
}

// joined counts in an endpoint that is on the loop.
func (l *Listener) joined(e endpoint) {
	l.set.used++
	l.stir()
	e.sock().back = nil
	if p, ok := e.(*packetSocket); ok {
		p.join(l.set)
		return
	}
	l.set.growBuffer(l.tunables.ReadBuffer)
}

// growBuffer makes room for the largest read that any listener asks for.
func (s *Set) growBuffer(n int64) {
	if int64(len(s.buf)) < n+minRead {
		s.buf = make([]byte, n+minRead)
	}
}

// Extend adds the sockets of opened, which was made with Open, to a listener
// that runs. They serve at once; its certificates are in use after Settle. When it fails nothing has changed, and opened
// is the caller's as before.
func (l *Listener) Extend(opened *Listener) error {
	if err := l.set.hasRoom(opened); err != nil {
		return err
	}
	adopted := make([]endpoint, 0, len(opened.endpoints))
	for _, e := range opened.endpoints {
		a := l.endpoint(e.sock())
		if err := l.set.loop.Add(e.sock().fd, mux.Readable, a.(mux.Handler)); err != nil {
			for _, e := range adopted {
				_ = l.set.loop.Remove(e.sock().fd)
			}
			return attachFault(l.Name, err)
		}
		adopted = append(adopted, a)
	}
	for _, e := range adopted {
		l.joined(e)
	}
	l.endpoints = append(l.endpoints, adopted...)
	l.newTLS = opened.tls
	opened.endpoints = nil
	return nil
}

// Settle makes the listener serve spec: sockets at addresses that it does not
// have are let go without losing what they have accepted, and connections to
// come get its handler and settings. Addresses that it has were added with
// Extend before, and options of sockets changed with Tune. Sockets that Share
// has named go, those beside them stay.
func (l *Listener) Settle(spec Spec) {
	gone := l.endpoints
	l.endpoints = make([]endpoint, 0, len(spec.Listen))
	for _, a := range spec.Listen { // port 0 may be there several times
		if i := slices.IndexFunc(gone, func(e endpoint) bool { return e.sock().asked == a && !e.sock().replaced }); i >= 0 {
			l.endpoints = append(l.endpoints, gone[i])
			gone = slices.Delete(gone, i, i+1)
		}
	}
	l.Retarget(spec)
	l.leaving = append(slices.DeleteFunc(l.leaving, isClosed), gone...)
	for _, e := range gone {
		l.part(e)
	}
	if x := l.passer(); x != nil {
		x.refresh()
	}
}

func isClosed(e endpoint) bool { return e.sock().fd < 0 }

// Close closes a listener that is on no loop.
func (l *Listener) Close() {
	if l.state == Opened {
		l.closeSockets()
		l.to(Closed)
	}
}

// closeSockets lets go of sockets that are on no loop.
func (l *Listener) closeSockets() {
	for _, e := range slices.Concat(l.endpoints, l.twins) {
		if s := e.sock(); s.back != nil {
			s.kept.giveBack(s.back)
			s.back, s.fd = nil, -1
		} else {
			s.close()
		}
	}
}
