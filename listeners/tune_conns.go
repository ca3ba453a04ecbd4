package listeners

import (
	"golang.org/x/sys/unix"
)

// tuneBudget is how many options one turn sets on connections. Each is read,
// set and read again, which takes 2 to 4 us, and up to 6 on a busy machine: so a
// turn takes less than 1 ms.
const tuneBudget = 128

// resetCost is what giving a socket the default back counts for, where that
// takes a new socket to compare with: 9 to 12 us.
const resetCost = 4

// TuneConns sets an option on open connections of l at descriptors from `from`
// on, adds what came of it to results, and returns the descriptor to go on
// from; -1 at the end.
func (s *Set) TuneConns(l *Listener, o *Option, v Value, from int, results []Result) ([]Result, int) {
	v, asked := o.settable(v), v
	next := s.someConns(l, o, o.cost(v), from, func(c *conn) {
		results = tally(results, c.tune(o, v).asked(asked))
	})
	return results, next
}

// someConns calls f for connections of l that have the option, as many as the
// budget of a turn has room for when each costs so much, from a descriptor on.
// It returns the one to go on from; -1 at the end.
func (s *Set) someConns(l *Listener, o *Option, cost, from int, f func(*conn)) int {
	budget, end := tuneBudget, min(from+sweepBudget, s.loop.Span())
	for fd := from; fd < end; fd++ {
		c, ok := s.loop.HandlerOf(fd).(*conn)
		if !ok || c.l.entire() != l || !o.isFor(c.socket()) {
			continue
		}
		if budget -= cost; budget < 0 {
			return fd
		}
		f(c)
	}
	if end == s.loop.Span() {
		return -1
	}
	return end
}

// settable is v, or for the default what that is, so that it is not asked of a
// new socket for each connection anew. Null is left where giving it back takes
// more than a value.
func (o *Option) settable(v Value) Value {
	if v.typ != Null || o.reset != nil {
		return v
	}
	def, _ := o.Probe()
	return def
}

// cost is what setting v takes of a budget.
func (o *Option) cost(v Value) int {
	if v.typ == Null && o.reset != nil {
		return resetCost
	}
	return 1
}

// asked is the result as it was asked for: the default is Null.
func (r Result) asked(v Value) Result {
	r.Requested = v
	return r
}

// TuneConn sets an option on one connection. found is false when it is gone.
func (s *Set) TuneConn(fd int, cookie uint64, o *Option, v Value) (r Result, found bool) {
	c, ok := s.loop.HandlerOf(fd).(*conn)
	if !ok || c.cookie() != cookie {
		return Result{}, false
	}
	return c.tune(o, v), true
}

func (c *conn) tune(o *Option, v Value) Result {
	r := Result{Option: o, Requested: v, Connections: 1}
	if err := r.apply(c.socket()); err != nil {
		r.fail(err)
	}
	if o.Name == linger {
		c.flags |= lingers
	}
	return r
}

// mostPrevious bounds the rows of connections that ended alike and began
// otherwise: some options differ on each.
const mostPrevious = 8

// tally adds up connections that began and ended alike. The row of a listener
// is its own. Where there are too many rows the last has all others, and what
// was there before is left out of it.
func tally(results []Result, r Result) []Result {
	last, rows := -1, 0
	for i, have := range results {
		if have.Connections == 0 || have.Option != r.Option || have.Outcome != r.Outcome || have.Errno != r.Errno || have.Effective != r.Effective {
			continue
		}
		last, rows = i, rows+1
		if have.Previous == r.Previous {
			results[i].Connections += r.Connections
			return results
		}
	}
	if rows < mostPrevious {
		return append(results, r)
	}
	results[last].Connections += r.Connections
	results[last].Previous = Value{}
	return results
}

// ConnInForce reads options of one connection from the kernel. found is false
// when it is gone.
func (s *Set) ConnInForce(fd int, cookie uint64, names []string) (values map[string]Value, found bool) {
	c, ok := s.loop.HandlerOf(fd).(*conn)
	if !ok || c.cookie() != cookie {
		return nil, false
	}
	values = map[string]Value{}
	for name, o := range c.l.spec.selectOptions(names) {
		if !o.OnConnection() || !o.isFor(c.socket()) {
			continue
		}
		if v, err := o.Get(c.socket()); err == nil {
			values[name] = v
		}
	}
	return values, true
}

// FindConn looks for a connection by cookie, or by the address of its peer
// when cookie is 0, from a descriptor on. It returns the descriptor where it
// is, or -1 and the descriptor to go on from, -1 at the end.
func (s *Set) FindConn(cookie uint64, remote string, from int) (fd int, at uint64, next int) {
	end := min(from+sweepBudget, s.loop.Span())
	for fd := from; fd < end; fd++ {
		c, ok := s.loop.HandlerOf(fd).(*conn)
		if !ok {
			continue
		}
		if cookie != 0 && c.cookie() == cookie || cookie == 0 && c.family != unix.AF_UNIX && c.peerName().String() == remote {
			return fd, c.cookie(), -1
		}
	}
	if end == s.loop.Span() {
		end = -1
	}
	return -1, 0, end
}

// ConnStatus is the status of one connection, in full.
func (s *Set) ConnStatus(fd int, cookie uint64) (st ConnStatus, found bool) {
	c, ok := s.loop.HandlerOf(fd).(*conn)
	if !ok || c.cookie() != cookie {
		return ConnStatus{}, false
	}
	return c.status(DetailFull), true
}

// AskConn asks the kernel for what of a connection is not known yet. One that has
// closed since stays as it is. It reports whether the connection is there.
func (s *Set) AskConn(st *ConnStatus, detail Detail) bool {
	c := s.connAt(st.FD, st.Cookie)
	if c != nil {
		c.ask(st, detail)
	}
	return c != nil
}
