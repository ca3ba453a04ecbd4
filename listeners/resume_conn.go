package listeners

import (
	"fmt"
	"slices"
	"time"
)

// conn goes on with a connection.
func (r *Resumption) conn(l *Listener, s *SavedConn) error {
	c, err := r.put(l, s)
	if err != nil {
		return err
	}
	if s.Durable != nil {
		if err := r.durable(c, s.Durable); err != nil {
			return err
		}
	}
	if err := r.handler(c, &s.Handler); err != nil {
		return err
	}
	if c.wantsToWrite() && !c.is(served) {
		c.noteOutput()
	}
	c.arm()
	return nil
}

// put puts a connection on the loop, which waits for nothing of it yet.
func (r *Resumption) put(l *Listener, s *SavedConn) (*conn, error) {
	fd, err := r.File(s.File)
	if err != nil {
		return nil, err
	}
	c := &conn{
		l: l, fd: int32(fd), family: s.Family, ending: s.Ending, remote: s.Remote,
		opened: s.Opened, active: s.Active, deadline: s.Deadline,
		received: s.Received, sent: s.Sent, reads: s.Reads, writes: s.Writes,
	}
	c.flags = s.flags()
	if len(s.In)+len(s.Out)+len(s.Shared) > 0 || s.Lingering {
		c.queues = &queues{in: s.In, out: s.Out, shared: s.Shared, tolerated: s.Tolerated}
		c.queues.more = len(s.In) > 0 // perhaps: the handler says what it can do with it
	}
	if s.Proxied.IsValid() {
		c.rarely().proxied = s.Proxied
	}
	if err := r.set.loop.Add(fd, 0, c); err != nil {
		return nil, attachFault(l.Name, err)
	}
	l.active++
	r.set.open++
	r.set.used++
	if l.tunables.MaxPerSource > 0 {
		c.joinOrigin()
	}
	if s.Link != nil {
		c.rarely().link = s.Link.link(c)
	}
	if c.startPace(); s.Pace != nil && c.isPaced() {
		p := c.rare.pace
		p.until = s.Pace.Until
		for d := range directions {
			p.buckets[d].full = s.Pace.Buckets[d]
		}
	}
	return c, nil
}

func (s *SavedConn) flags() (f connFlags) {
	set := func(flag connFlags, on bool) {
		if on {
			f |= flag
		}
	}
	set(eof, s.EOF)
	set(done, s.Done)
	set(lingering, s.Lingering)
	set(packets, s.Packets)
	set(told, s.Told)
	set(lingers, s.Lingers)
	return f
}

// handler gives the connection what served it, and waits for what that waits for.
func (r *Resumption) handler(c *conn, s *SavedHandler) error {
	switch {
	case s.Kind == savedRelay && s.Relay != nil:
		return r.relay(c, s.Relay)
	case s.Kind == savedOffered && s.Offered != nil:
		r.offered(c, s.Offered)
		return nil
	case s.Kind == savedExec && s.Exec != nil:
		return r.program(c, s.Exec)
	case s.Kind == "handoff" && s.Handoff != nil:
		return r.handoff(c, s.Handoff)
	case s.Kind == "http" && s.HTTP != nil:
		h, err := r.http(c.l, s.HTTP)
		if err != nil {
			return err
		}
		c.handler = h
	case s.Kind == savedPreface:
		c.handler = &preface{next: c.l.handler}
	case s.Kind == savedGreeting:
		f, ok := inner(c.l.handler).(*forwarder)
		if !ok {
			return fmt.Errorf("a connection waits to be routed, and the handler is %s", c.l.spec.Handler.Kind())
		}
		g := &greeting{f: f}
		_, _, _ = g.hello.add(s.Hello) // it was found not to be whole
		c.handler = g
	case s.Kind == "chargen":
		c.handler = &generator{ended: s.Ended}
		c.flags |= feeds
	case s.Kind == "echo":
		c.handler = Echo{}
	case s.Kind == "discard":
		c.handler = Discard{}
	default:
		return fmt.Errorf("a connection has the handler %q, which this program does not know", s.Kind)
	}
	if c.is(lingering) && c.is(eof) { // what a fault holds goes out, and nothing comes
		c.waitFor(0)
	} else {
		c.waitFor(c.interest())
	}
	return nil
}

func (r *Resumption) http(l *Listener, s *SavedHTTP) (*httpConn, error) {
	h, ok := l.handler.(*httpHandler)
	if s.Spec > 0 {
		if h = r.handlers[s.Spec]; h == nil {
			if s.Spec > len(r.specs) {
				return nil, fmt.Errorf("handler %d is missing", s.Spec)
			}
			spec, err := unmarshalHandler(r.specs[s.Spec-1])
			if err != nil {
				return nil, err
			}
			if h, ok = spec.New().(*httpHandler); !ok {
				return nil, fmt.Errorf("a connection has a request to the handler %s", spec.Kind())
			}
			r.handlers[s.Spec] = h
		}
	} else if !ok {
		return nil, fmt.Errorf("a connection has a request to the handler %s", l.spec.Handler.Kind())
	}
	return &httpConn{
		h: h, served: s.Served, armed: s.Armed, draining: s.Draining, resting: s.Resting,
		req: httpRequest{
			left: s.Left, room: s.Room, size: s.Size, phase: httpPhase(s.Phase), begun: s.Begun, isHead: s.Head, http10: s.HTTP10, host: s.Host,
			length: s.Length, chunked: s.Chunked, coded: s.Coded, expects: s.Expects, closes: s.Closes, keepAlive: s.Persist,
		},
	}, nil
}

func (r *Resumption) relay(c *conn, s *SavedRelay) error {
	f, _ := inner(c.l.handler).(*forwarder)
	up := &relay{f: f, c: c, fd: -1, server: s.Server, until: s.Until, there: r.flow(&s.There), back: r.flow(&s.Back)}
	c.flags |= served
	c.handler = up
	if !s.Open {
		if f == nil {
			return fmt.Errorf("a connection waits for an upstream, and the handler is %s", c.l.spec.Handler.Kind())
		}
		r.set.loop.After(0, func() {
			if c.fd >= 0 {
				up.begin()
			}
		})
		return nil
	}
	fd, err := r.File(s.File)
	if err != nil {
		return err
	}
	up.up, up.fd, up.isOpen = f.upstreamOr(s.Pool, s.Upstream), int32(fd), true
	if err := r.set.loop.Add(fd, 0, up); err != nil {
		return attachFault(c.l.Name, err)
	}
	r.set.used++
	up.up.active++
	up.hop, up.out = r.set.goesOn(fd, up.up.network(), c.l)
	up.settle()
	return nil
}

func (r *Resumption) flow(s *SavedFlow) flow {
	f := flow{rest: s.Rest, eof: s.EOF, shut: s.Shut, lost: s.Lost}
	if p := s.Pipe; p != nil && max(p.R, p.W) < len(r.files) && min(p.R, p.W) >= 0 {
		f.pipe = &pipe{set: r.set, r: r.files[p.R], w: r.files[p.W], held: p.Held}
		r.set.used += 2
	}
	return f
}

func (r *Resumption) offered(c *conn, s *SavedOffered) {
	m, ok := c.l.handler.(*remoter)
	if !ok { // it was another when the client took the connection
		m = &remoter{spec: &Remote{}}
	}
	o := &Offered{r: m, c: c, place: s.Place, since: s.Since, early: s.Early}
	c.flags |= served
	c.handler = o
	if s.Taken {
		r.Taken[c.cookie()] = o
		return
	}
	m.put(o)
}

// Use gives a connection, which a client used in the process before, to u.
func (o *Offered) Use(u User) { o.user = u }

func (r *Resumption) handoff(c *conn, s *SavedHandoff) error {
	h, ok := c.l.handler.(*handoffer)
	if !ok {
		return fmt.Errorf("a connection waits for a process, and the handler is %s", c.l.spec.Handler.Kind())
	}
	c.handler = h
	at, _ := slices.BinarySearchFunc(h.held, s.Until, func(w heldConn, until time.Duration) int {
		if w.until <= until {
			return -1
		}
		return 1
	})
	if h.held = slices.Insert(h.held, at, heldConn{c, s.Until}); len(h.held) == 1 {
		r.set.loop.After(0, h.pass)
	}
	return nil
}

func (s *SavedLink) link(c *conn) *link {
	k := &link{c: c, f: s.Faults, began: s.Began, in: s.In.line(), out: s.Out.line(), fate: end(s.Fate), gone: s.Gone, over: s.Over}
	if k.fate != noEnd {
		c.l.set.loop.Arm(&k.timer, k.now(), k)
	}
	return k
}

func (s *SavedLine) line() line {
	q := line{
		data: s.Data, errno: s.Errno, piece: s.Piece, pause: s.Pause, rest: s.Rest, end: s.End, cut: s.Cut, ended: s.Ended, over: s.Over, total: s.Total, most: s.Most,
	}
	for i := range min(len(s.At), len(s.N)) {
		q.marks = append(q.marks, mark{s.At[i], s.N[i]})
	}
	return q
}
