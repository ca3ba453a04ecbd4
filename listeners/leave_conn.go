package listeners

import "slices"

// conn saves a connection; it reports whether it can move.
func (t *Transfer) conn(c *conn) (SavedConn, bool) {
	s := SavedConn{
		Listener: c.l.Name, Family: c.family, Packets: c.is(packets), Cookie: c.cookie(), Remote: c.remote,
		Opened: c.opened, Active: c.active, Deadline: c.deadline, Received: c.received, Sent: c.sent, Reads: c.reads, Writes: c.writes,
		EOF: c.is(eof), Done: c.is(done), Lingering: c.is(lingering), Told: c.is(told), Lingers: c.is(lingers), Ending: c.ending,
	}
	if q := c.queues; q != nil {
		s.In, s.Out, s.Shared, s.Tolerated = q.in, q.out, q.shared, q.tolerated
	}
	if !t.handler(c, &s.Handler) {
		return s, false
	}
	s.File = t.File(int(c.fd))
	if r := s.Handler.Relay; r != nil && r.Open {
		r.File = t.File(int(c.relay().fd))
	}
	if c.rare != nil {
		s.Proxied = c.rare.proxied
	}
	if c.isPaced() {
		p := c.rare.pace
		s.Pace = &SavedPace{Until: p.until}
		for d := range directions {
			s.Pace.Buckets[d] = p.buckets[d].full
		}
	}
	if k := c.link(); k != nil {
		s.Link = &SavedLink{Faults: k.f, Began: k.began, In: k.in.save(), Out: k.out.save(), Fate: uint8(k.fate), Gone: k.gone, Over: k.over}
	}
	if d := c.durable(); d != nil {
		s.Durable = &SavedDurable{Slot: d.number(), Got: d.got, Joined: d.joined}
	}
	return s, true
}

// handler saves what serves a connection; it reports whether it can move.
func (t *Transfer) handler(c *conn, s *SavedHandler) bool {
	switch h := c.handler.(type) {
	case *relay:
		return t.relay(h, s)
	case *Offered:
		s.Kind, s.Offered = savedOffered, &SavedOffered{Place: h.place, Since: h.since, Early: h.early, Taken: h.user != nil}
		moves := h.user != nil || h.r.l != nil
		if moves {
			t.offered[c.cookie()] = true
		}
		return moves
	case *execConn:
		return t.program(h, s)
	}
	switch h := c.handler.(type) {
	case server: // a thread
		return false
	case *httpConn:
		return t.http(h, c.l, s)
	case *preface:
		s.Kind = savedPreface
	case *greeting:
		s.Kind, s.Hello = savedGreeting, h.hello.raw
		_, ok := inner(c.l.handler).(*forwarder)
		return ok
	case *handoffer:
		i := slices.IndexFunc(h.held, func(w heldConn) bool { return w.c == c })
		if i < 0 || h != c.l.handler {
			return false
		}
		s.Kind, s.Handoff = "handoff", &SavedHandoff{Until: h.held[i].until}
	case *generator:
		s.Kind, s.Ended = "chargen", h.ended
	case Echo:
		s.Kind = "echo"
	case Discard, repliedTo, afterTLS:
		s.Kind = "discard"
	default: // it is asked nothing any more
		s.Kind = "discard"
		return c.is(done)
	}
	return true
}

func (t *Transfer) http(h *httpConn, l *Listener, s *SavedHandler) bool {
	r := &h.req
	s.Kind = "http"
	s.HTTP = &SavedHTTP{
		Served: h.served, Armed: h.armed, Draining: h.draining, Resting: h.resting, Left: r.left, Room: r.room, Size: r.size, Phase: uint8(r.phase),
		Begun: r.begun, Head: r.isHead, HTTP10: r.http10, Host: r.host, Length: r.length, Chunked: r.chunked, Coded: r.coded,
		Expects: r.expects, Closes: r.closes, Persist: r.keepAlive,
	}
	if h.h == l.handler {
		return true
	}
	if t.handlers[h.h] == 0 {
		spec, err := marshalHandler(h.h.spec)
		if err != nil {
			return false
		}
		t.Handlers = append(t.Handlers, spec)
		t.handlers[h.h] = len(t.handlers) + 1
	}
	s.HTTP.Spec = t.handlers[h.h]
	return true
}

// relay saves an upstream. One that is being connected to is chosen anew.
func (t *Transfer) relay(r *relay, s *SavedHandler) bool {
	s.Kind = savedRelay
	s.Relay = &SavedRelay{Server: r.server, Open: r.isOpen, Until: r.until}
	f, forwards := inner(r.c.l.handler).(*forwarder)
	if r.isOpen {
		s.Relay.Upstream, s.Relay.Pool = r.up.Address, f.poolOf(r.up)
	}
	s.Relay.There, s.Relay.Back = t.flow(&r.there), t.flow(&r.back)
	return r.isOpen || forwards
}

func (t *Transfer) flow(f *flow) SavedFlow {
	s := SavedFlow{Rest: f.rest, EOF: f.eof, Shut: f.shut, Lost: f.lost}
	if p := f.pipe; p != nil {
		s.Pipe = &SavedPipe{R: t.File(p.r), W: t.File(p.w), Held: p.held}
	}
	return s
}

// poolOf is the place of an upstream's pool; -1: it has none any more.
func (f *forwarder) poolOf(u *upstream) int {
	if f == nil {
		return -1
	}
	return slices.IndexFunc(f.pools, func(p *pool) bool { return slices.Contains(p.upstreams, u) })
}

func (t *Transfer) forwarder(f *forwarder, s *SavedListener) {
	for i, p := range f.pools {
		for _, u := range p.upstreams {
			s.Upstreams = append(s.Upstreams, SavedUpstream{
				Pool: i, Address: u.Address, Addrs: u.addrs, Turn: u.turn, Down: u.down, Failures: u.failures, Successes: u.successes, TryAgain: u.tryAgain,
				LastError: u.lastError, Connects: u.connects, Failed: u.failed, Current: u.current, ResolveAt: u.resolveAt, CheckAt: u.checkAt,
			})
		}
	}
	for _, ses := range f.sessions {
		at := slices.IndexFunc(s.Sockets, func(sock SavedSocket) bool { return t.Files[sock.File] == ses.from.s.fd })
		if at < 0 || ses.fd < 0 {
			continue // its socket is gone: it ends
		}
		s.Sessions = append(s.Sessions, SavedSession{
			File: t.File(ses.fd), Socket: at, Source: ses.from.ip, Proxied: ses.from.proxied, Name: ses.from.name, Pool: f.poolOf(ses.up), Upstream: ses.up.Address,
			Active: ses.active, To: rawName(&ses.to, ses.toLen), Control: ses.control, Header: ses.header, Together: ses.segments.most, Gathers: ses.gathers,
		})
	}
}

func (q *line) save() SavedLine {
	s := SavedLine{
		Data: q.data, Errno: q.errno, Piece: q.piece, Pause: q.pause, Rest: q.rest, End: q.end, Cut: q.cut, Ended: q.ended, Over: q.over, Total: q.total, Most: q.most,
	}
	for _, m := range q.marks {
		s.At, s.N = append(s.At, m.at), append(s.N, m.n)
	}
	return s
}

// part lets go of a connection that has moved. It is not over: nobody is told,
// and nothing is counted.
func (c *conn) part() {
	set := c.l.set
	if c.rare != nil {
		c.rare.durable = nil // the slot has moved
	}
	switch h := c.handler.(type) {
	case *relay:
		set.loop.Disarm(&h.timer)
		h.leave()
		for _, f := range []*flow{&h.there, &h.back} {
			if f.pipe != nil {
				f.pipe.close() // the other process has it
			}
			*f = flow{}
		}
	case *Offered:
		h.user = nil
		h.r.pending = slices.DeleteFunc(h.r.pending, func(other *Offered) bool { return other == h })
	case *execConn:
		h.part()
	}
	set.loop.Disarm(&c.timer)
	_ = set.loop.Remove(int(c.fd)) // before the close, as always
	sysClose(int(c.fd))
	c.fd = -1
	c.queues = nil
	c.forgetOutput()
	if c.rare != nil {
		c.leaveOrigin()
		if c.rare.link != nil {
			c.rare.link.drop()
		}
		if c.rare.pace != nil {
			c.rare.pace.drop()
		}
	}
	c.l.active--
	set.open--
	set.used--
}

// part is that of a session.
func (ses *session) part() {
	set := ses.f.l.set
	set.loop.Disarm(&ses.timer)
	_ = set.loop.Remove(ses.fd) // before the close, as always
	sysClose(ses.fd)
	ses.fd = -1
	set.closedOut(ses.out, ses.hop)
	ses.up.active--
	delete(ses.f.sessions, ses.from)
	set.used--
}
