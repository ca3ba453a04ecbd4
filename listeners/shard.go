package listeners

import "slices"

// A shard is what a worker's loop has of a listener: a Listener without a socket,
// with connections that the first loop has accepted, settings to serve them by and
// counters of its own. The listener has a shard on a loop once it has given a
// connection there; nobody outside sees them as anything but the whole.
//
// What cannot be served apart stays on the first loop: connections of TLS and of
// threads (which have goroutines, and so all processors, anyway), programs, remote,
// handoff and func; and all connections of a listener with faults, with a rate or a
// write buffer for all its connections together, or with durability. When a
// listener gets one of these its connections are called home.

// spreading is whether connections of a listener are served by other loops.
type spreading uint8

const (
	atHome   spreading = iota // no
	atAccept                  // yes
	onceOpen                  // once they are relayed: upstreams are chosen by the first loop
)

// spreading finds out.
func (l *Listener) spreading() spreading {
	t := &l.tunables
	if l.set == nil || len(l.set.workers) == 0 || l.spec.Class()&OnStream == 0 || l.spec.TLS != nil || l.spec.concurrency() != OnLoop ||
		t.Durability > 0 || t.TotalWriteBuffer > 0 || t.faults() != (Faults{}) || t.rates().all != ([directions]rate{}) {
		return atHome
	}
	switch l.handler.(type) {
	case Echo, Discard, Chargen, Daytime, Time, *Reply, *httpHandler:
		return atAccept
	case *forwarder:
		return onceOpen
	default:
		return atHome
	}
}

// entire is the listener that a shard is of, or l.
func (l *Listener) entire() *Listener {
	if l.whole != nil {
		return l.whole
	}
	return l
}

// shard is that on a worker's loop, made when it is needed first.
func (l *Listener) shard(w *worker) *Listener {
	if l.shards == nil {
		l.shards = make([]*Listener, len(l.set.workers))
		if l.set.sharded == nil {
			l.set.sharded = map[*Listener]bool{}
		}
		l.set.sharded[l] = true
	}
	at := w.set.number - 1
	if l.shards[at] == nil {
		l.shards[at] = &Listener{Name: l.Name, whole: l, set: w.set, stats: &Counters{}, state: Running}
		l.shards[at].obey(l.terms())
	}
	return l.shards[at]
}

// terms are what a listener's connections are served by.
type terms struct {
	handler  Handler
	spec     Spec
	tunables Tunables
	onConn   []setting
	lingers  bool
	paced    rates
}

func (l *Listener) terms() terms {
	return terms{l.handler, l.spec, l.tunables, l.onConn, l.lingers, l.paced}
}

// obey makes a shard serve by t what comes from now on. It touches no loop.
func (l *Listener) obey(t terms) {
	switch h := t.handler.(type) {
	case *httpHandler:
		l.handler = l.httpHandler(h)
	case *forwarder: // it is the first loop's
		l.handler = nil
	default: // it is a value that does not change
		l.handler = h
	}
	l.spec, l.tunables, l.onConn, l.lingers, l.paced = t.spec, t.tunables, t.onConn, t.lingers, t.paced
}

// reshard has shards follow what was changed, or calls their connections home if
// they cannot.
func (l *Listener) reshard() {
	l.spreads = l.spreading()
	if l.shards == nil {
		return
	}
	if l.spreads == atHome {
		l.callHome()
		return
	}
	t := l.terms()
	l.eachShard(func(sh *Listener) {
		paced := sh.paced != t.paced
		sh.obey(t)
		sh.restall()
		sh.set.sweep(sh, func(c *conn) {
			if paced {
				c.repace()
			}
			if c.fd >= 0 {
				c.arm()
			}
		}, func() {})
	})
}

// eachShard has f called for each shard, on its loop.
func (l *Listener) eachShard(f func(sh *Listener)) {
	for _, sh := range l.shards {
		if sh != nil {
			_ = sh.set.loop.Post(func() { f(sh) }) // ended: all is closed
		}
	}
}

// everywhere has f called for the connections of the listener, on their loops,
// some in each turn.
func (l *Listener) everywhere(f func(*conn)) {
	l.set.sweep(l, f, func() {})
	d := l.drain
	l.eachShard(func(sh *Listener) {
		sh.drain = d
		sh.set.sweep(sh, f, func() {})
	})
}

// callHome has the connections of all shards served by the first loop.
func (l *Listener) callHome() {
	for _, sh := range l.shards {
		if sh != nil {
			sh.set.callHome(sh, func() {})
		}
	}
}

// Shards are what the other loops have of the listener, by their numbers less
// one; nil where there is nothing. It is for the first loop. What it returns is
// for [Listener.Counted] and [Listener.AddTo].
func (l *Listener) Shards() []*Listener { return slices.Clone(l.shards) }

// Counted is what a shard has counted, as AddTo has it.
func (l *Listener) Counted() Stats { return l.stats.Stats }

// Add adds up what two loops have counted.
func (s *Stats) Add(o Stats) {
	s.Accepted += o.Accepted
	s.Rejected += o.Rejected
	s.Received += o.Received
	s.Sent += o.Sent
}

// AddTo adds what a shard has counted to c, the histograms only with times. It is
// for the shard's loop. After the shard is closed it adds what it had counted.
func (l *Listener) AddTo(c *Counters, times bool) { c.add(l.stats, times) }

// gatherShards takes what shards have counted into the listener's own counters,
// now that all their connections have departed. Who reads the shards still, which
// do not change any more, has read the counters before that.
func (l *Listener) gatherShards() {
	for _, sh := range l.shards {
		if sh != nil {
			l.stats.add(sh.stats, true)
		}
	}
	l.shards = nil
	delete(l.set.sharded, l)
}

// add adds up what two loops have counted. The most at once is the first one's.
func (c *Counters) add(o *Counters, times bool) {
	c.Add(o.Stats)
	c.ReceivedDatagrams += o.ReceivedDatagrams
	c.SentDatagrams += o.SentDatagrams
	for i, n := range o.RejectedBy {
		c.RejectedBy[i] += n
	}
	for i, n := range o.ClosedBy {
		c.ClosedBy[i] += n
	}
	for e, n := range o.Errors {
		if c.Errors == nil {
			c.Errors = map[CallError]uint64{}
		}
		c.Errors[e] += n
	}
	if times && o.Times != nil {
		t := c.times()
		t.AcceptDelay.Add(&o.Times.AcceptDelay)
		t.FirstByte.Add(&o.Times.FirstByte)
		t.Duration.Add(&o.Times.Duration)
		t.RTT.Add(&o.Times.RTT)
	}
}
