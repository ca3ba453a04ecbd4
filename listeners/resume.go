package listeners

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A Resumption is what was left by another process, as it goes on here.
type Resumption struct {
	Listeners map[string]*Listener
	Counters  map[string]*Counters
	Taken     map[uint64]*Offered // connections that clients use, by cookie: see Offered.Use

	set      *Set
	kept     *Kept
	specs    [][]byte // Saved.Handlers of all parts
	files    []int
	handlers map[int]*httpHandler

	starters  []SavedExecutor // Saved.Executors of all parts
	executors map[int]*executor
}

// Resume goes on with what another process leaves, on a loop that does not turn
// yet, once all parts of it are taken up.
func (s *Set) Resume(kept *Kept) *Resumption {
	return &Resumption{
		Listeners: map[string]*Listener{}, Counters: map[string]*Counters{}, Taken: map[uint64]*Offered{}, set: s, kept: kept, handlers: map[int]*httpHandler{}, executors: map[int]*executor{},
	}
}

// TakeUp takes up a part. files are the descriptors that came with it, which are
// the Set's from here on. When it fails, what was made is of no use, and the
// process is to end.
func (r *Resumption) TakeUp(saved *Saved, files []int) error {
	r.files, r.specs = append(r.files, files...), append(r.specs, saved.Handlers...)
	r.starters = append(r.starters, saved.Executors...)
	for _, b := range saved.Back {
		fd, err := r.File(b.File)
		if err != nil {
			return err
		}
		if one, err := lookAt(Returned{Name: b.Name, FD: fd}); err == nil && r.kept != nil {
			r.kept.giveBack(one)
		} else {
			sysClose(fd)
		}
	}
	if err := r.arenas(saved.Arenas); err != nil {
		return err
	}
	for i := range saved.Listeners {
		if err := r.listener(&saved.Listeners[i]); err != nil {
			return named(saved.Listeners[i].Name, err)
		}
	}
	for i := range saved.Stderrs {
		if err := r.stderr(&saved.Stderrs[i]); err != nil {
			return err
		}
	}
	for i := range saved.Conns {
		l := r.Listeners[saved.Conns[i].Listener]
		if l == nil {
			return fmt.Errorf("a connection of listener %q came without it", saved.Conns[i].Listener)
		}
		if err := r.conn(l, &saved.Conns[i]); err != nil {
			return named(l.Name, err)
		}
	}
	return nil
}

// Finish has the listeners serve again: all parts were taken up.
func (r *Resumption) Finish() error {
	if k := r.set.durables; k != nil {
		k.settle()
	}
	for _, name := range slices.Sorted(maps.Keys(r.Listeners)) {
		if err := r.Listeners[name].serveAgain(); err != nil {
			return err
		}
	}
	return nil
}

// File is the descriptor at a place among those of all parts.
func (r *Resumption) File(at int) (int, error) {
	if at < 0 || at >= len(r.files) {
		return -1, fmt.Errorf("descriptor %d is missing: %d came", at, len(r.files))
	}
	return r.files[at], nil
}

func (r *Resumption) listener(s *SavedListener) error {
	l := &Listener{Name: s.Name, set: r.set}
	if err := json.Unmarshal(s.Spec, &l.spec); err != nil {
		return err
	}
	l.tunables, l.handler = l.spec.tunables(), l.spec.handler()
	if l.spec.TLS != nil {
		var err error
		if l.tls, err = openTLS(l.spec.TLS); err != nil {
			return err
		}
	}
	counters := s.Counters
	l.stats = &counters
	l.state, l.paused = s.State, s.Paused
	l.counted, l.paced, l.faults = l.tunables.originRule(), l.tunables.rates(), l.tunables.faults()
	d := &s.Drain
	l.drain = drain{began: d.Began, until: d.Until, initial: d.Initial, cut: d.Cut, timeout: d.Timeout, from: d.From, lame: d.Lame}
	if s.Until > 0 {
		r.set.loop.Arm(&l.deadline, s.Until, l)
	}
	r.rates(l, s)
	l.prepareConns()
	l.reshard()
	l.show()
	r.set.growBuffer(l.tunables.ReadBuffer)
	r.Listeners[s.Name], r.Counters[s.Name] = l, l.stats
	l.stir()
	all := make([]endpoint, 0, len(s.Sockets))
	for i := range s.Sockets {
		e, err := r.socket(l, &s.Sockets[i])
		if err != nil {
			return err
		}
		all = append(all, e)
	}
	if f, ok := inner(l.handler).(*forwarder); ok {
		f.l = l
		f.recall(s.Upstreams)
		for i := range s.Sessions {
			if err := r.session(f, &s.Sessions[i], all); err != nil {
				return err
			}
		}
	}
	if m, ok := l.handler.(*remoter); ok {
		m.place = s.Place
	}
	if a, ok := l.handler.(Attacher); ok {
		a.Attach(l, nil)
	}
	return r.accepting(l, s, all)
}

// rates goes on with what rates have let through.
func (r *Resumption) rates(l *Listener, s *SavedListener) {
	if t := s.Throttle; t != nil {
		l.throttle = &throttle{l: l, bucket: bucket{t.Bucket}, calm: t.Calm, resting: t.Resting}
		if t.Until > 0 {
			r.set.loop.Arm(&l.throttle.timer, t.Until, l.throttle)
		}
	}
	l.openGates()
	if g := s.Gates; g != nil && l.gates != nil {
		l.gates[reading].bucket.full, l.gates[writing].bucket.full = g[reading], g[writing]
	}
}

// accepting goes on with what keeps the loop from accepting: programs that have
// the sockets, or fail.
func (r *Resumption) accepting(l *Listener, s *SavedListener, sockets []endpoint) error {
	if s.Failing != "" {
		l.failing = s.Failing
		l.tryAgain = r.set.loop.After(max(0, s.TryAgain-r.set.loop.Clock()), l.cheerUp)
	}
	if s.Passing != nil {
		if err := r.passing(l, s.Passing, sockets); err != nil {
			return err
		}
	}
	if l.passer() != nil && !l.passed { // one may have had them
		for _, e := range sockets {
			_ = unix.SetNonblock(e.sock().fd, true) // nothing keeps it from that
		}
	}
	return nil
}

func (r *Resumption) socket(l *Listener, s *SavedSocket) (endpoint, error) {
	fd, err := r.File(s.File)
	if err != nil {
		return nil, err
	}
	sock := &socket{
		fd: fd, family: s.Family, asked: s.Asked, addr: s.Addr, inode: s.Inode, peak: s.Peak, dev: s.Dev, ino: s.Ino, made: s.Made,
		shut: s.Shut, lost: s.Lost, kept: r.kept, stored: s.Stored, foreign: s.Foreign, foreignName: s.ForeignName, lent: s.Lent,
	}
	for _, g := range s.Groups {
		sock.groups = append(sock.groups, group{g.IP, g.Iface})
	}
	e := l.endpoint(sock)
	r.set.used++
	switch e := e.(type) {
	case *streamSocket:
		e.resting, e.ending, e.owed, e.paused, e.filtered = true, ending(s.Ending), s.Owed, s.Paused, s.Filtered
	case *packetSocket:
		e.resting, e.paused = true, s.Paused
		e.join(r.set)
		for _, d := range s.Unsent {
			e.unsent = append(e.unsent, d.outgoing())
			e.pending += len(d.Data)
		}
		for d := range directions {
			for _, held := range s.Late[d] {
				if e.late == nil {
					e.late = &late{s: e}
				}
				e.late.put(d, held.outgoing(), held.At)
			}
		}
	}
	if s.Leaving {
		l.leaving = append(l.leaving, e)
	} else {
		l.endpoints = append(l.endpoints, e)
	}
	return e, nil
}

func (d *SavedDatagram) outgoing() outgoing {
	to, size := nameOf(d.To)
	return outgoing{to: &to, toLen: size, control: d.Control, header: d.Header, data: d.Data}
}

// nameOf is rawName the other way.
func nameOf(b []byte) (sa unix.RawSockaddrAny, size uint32) {
	size = uint32(copy((*[unix.SizeofSockaddrAny]byte)(unsafe.Pointer(&sa))[:], b))
	return sa, size
}

// serveAgain lets the sockets wait for clients, as far as they may: all
// connections are there.
func (l *Listener) serveAgain() error {
	l.unlimit()
	for _, e := range slices.Concat(l.endpoints, l.leaving) {
		if s := e.sock(); s.lost {
			_ = l.set.loop.Post(func() { l.lose(s) }) // the other process had no time to
			continue
		}
		switch s := e.(type) {
		case *streamSocket:
			if s.shut || s.ending == serving && (l.isResting() || s.paused != NotPaused || l.passed) {
				continue
			}
			if err := l.set.loop.Add(s.fd, mux.Readable, s); err != nil {
				return attachFault(l.Name, err)
			}
			s.resting = false
		case *packetSocket:
			want := mux.Readable
			if len(s.unsent) > 0 {
				want = mux.Writable
			} else if s.paused != NotPaused || l.passed || l.failing != "" {
				continue
			}
			if err := l.set.loop.Add(s.fd, want, s); err != nil {
				return attachFault(l.Name, err)
			}
			s.resting = false
		}
	}
	_ = l.set.loop.Post(l.ended) // what it drained may be over: the rest is the other process's
	return nil
}

// recall takes over what was known of upstreams.
func (f *forwarder) recall(saved []SavedUpstream) {
	for _, s := range saved {
		u := f.upstreamAt(s.Pool, s.Address)
		if u == nil {
			continue
		}
		if u.host != "" {
			u.addrs = s.Addrs
		}
		u.owner = f
		u.turn, u.down, u.failures, u.successes, u.tryAgain = s.Turn, s.Down, s.Failures, s.Successes, s.TryAgain
		u.lastError, u.connects, u.failed, u.current = s.LastError, s.Connects, s.Failed, s.Current
		u.resolveAt, u.checkAt = s.ResolveAt, s.CheckAt
	}
}

// upstreamAt is the upstream with that address in a pool; nil: there is none.
func (f *forwarder) upstreamAt(at int, address string) *upstream {
	if f == nil || at < 0 || at >= len(f.pools) {
		return nil
	}
	for _, u := range f.pools[at].upstreams {
		if u.Address == address {
			return u
		}
	}
	return nil
}

// upstreamOr is upstreamAt, or else one that nobody chooses: a connection has it
// still.
func (f *forwarder) upstreamOr(at int, address string) *upstream {
	if u := f.upstreamAt(at, address); u != nil {
		return u
	}
	return &upstream{Upstream: Upstream{Address: address}}
}

func (r *Resumption) session(f *forwarder, s *SavedSession, sockets []endpoint) error {
	fd, err := r.File(s.File)
	if err != nil {
		return err
	}
	var p *packetSocket
	if s.Socket >= 0 && s.Socket < len(sockets) {
		p, _ = sockets[s.Socket].(*packetSocket)
	}
	if p == nil {
		return fmt.Errorf("a session came without its socket %d", s.Socket)
	}
	ses := &session{
		f: f, from: source{s: p, ip: s.Source, name: s.Name, proxied: s.Proxied}, up: f.upstreamOr(s.Pool, s.Upstream), fd: fd, active: s.Active,
		control: s.Control, header: s.Header, segments: segments{s.Together}, gathers: s.Gathers,
	}
	ses.to, ses.toLen = nameOf(s.To)
	if err := r.set.loop.Add(fd, mux.Readable, ses); err != nil {
		return err
	}
	r.set.used++
	ses.up.active++
	ses.hop, ses.out = r.set.goesOn(fd, ses.up.network(), f.l)
	f.sessions[ses.from] = ses
	ses.arm()
	return nil
}
