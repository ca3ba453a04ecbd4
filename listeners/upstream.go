package listeners

import (
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// An upstream is what is known of one place to relay to. Loop only. It outlives
// the forwarder when another one has it too.
type upstream struct {
	Upstream
	owner *forwarder // that checks and resolves it; nil: nobody any more
	host  string     // a name; empty: the address is a number
	port  uint16
	addrs []Address // where to connect to; of a name, what it was resolved to
	turn  int       // which of addrs is next

	down      bool
	failures  uint32 // in a row
	successes uint32 // of checks, in a row
	tryAgain  time.Duration
	lastError string

	active   int64
	connects uint64
	failed   uint64
	current  int64 // of smooth weighted round robin

	resolveAt time.Duration
	checkAt   time.Duration
	checking  *check
}

// UpstreamStatus is what is true of an upstream now.
type UpstreamStatus struct {
	Address   string
	Resolved  []Address // of a name
	Healthy   bool
	Drain     bool
	Weight    uint32
	Active    int64
	Connects  uint64
	Failed    uint64
	LastError string
	Names     []string // of its route; none: it is for the rest
}

func (u *upstream) status() UpstreamStatus {
	st := UpstreamStatus{
		Address: u.Address, Healthy: !u.down, Drain: u.Drain, Weight: u.weight(), Active: u.active,
		Connects: u.connects, Failed: u.failed, LastError: u.lastError,
	}
	if u.host != "" {
		st.Resolved = u.addrs
	}
	return st
}

func (u *upstream) weight() uint32 { return orDefault(u.Weight, 1) }

// next is where to connect to: each address that a name has, in turn.
func (u *upstream) next() (Address, bool) {
	if len(u.addrs) == 0 {
		return Address{}, false
	}
	u.turn++
	return u.addrs[u.turn%len(u.addrs)], true
}

// A pool is upstreams of which one is chosen: of a route, or the default ones.
type pool struct {
	names     []string // of its route
	balance   Balance
	checked   bool // somebody looks whether those that are down are back
	upstreams []*upstream
}

func newPool(spec *Forward, upstreams []Upstream) *pool {
	p := &pool{balance: spec.Balance, checked: spec.Health != nil}
	for _, s := range upstreams {
		u := &upstream{Upstream: s}
		if host, port, ok := s.name(); ok {
			u.host, u.port = host, port
		} else if a, err := ParseAddress(s.Address); err == nil { // Validate has seen it
			u.addrs = []Address{a}
		}
		p.upstreams = append(p.upstreams, u)
	}
	return p
}

// inherit keeps what is known of upstreams that stay, each in one pool.
func (p *pool) inherit(old *pool, kept map[*upstream]bool) {
	for i, u := range p.upstreams {
		for _, was := range old.upstreams {
			if was.Address == u.Address && !kept[was] && !kept[p.upstreams[i]] {
				was.Weight, was.Drain, was.current = u.Weight, u.Drain, 0 // the address, which other loops read, stays
				p.upstreams[i], kept[was] = was, true
			}
		}
	}
}

// usable reports whether an upstream takes a new connection. One that is down
// and that nobody checks is tried again after a while.
func (u *upstream) usable(now time.Duration, tried []*upstream) bool {
	return !slices.Contains(tried, u) && !u.Drain && len(u.addrs) > 0 && (!u.down || u.health() == nil && now >= u.tryAgain)
}

// choose picks an upstream that was not tried yet; nil when there is none. If
// all are down and nobody checks them, one of them is better than none.
func (p *pool) choose(source netip.Addr, now time.Duration, tried []*upstream) *upstream {
	best := p.chooseUsable(source, now, tried)
	if best != nil || p.checked {
		return best
	}
	for _, u := range p.upstreams {
		if u.down && u.usable(u.tryAgain, tried) && (best == nil || u.tryAgain < best.tryAgain) {
			best = u
		}
	}
	return best
}

func (p *pool) chooseUsable(source netip.Addr, now time.Duration, tried []*upstream) (best *upstream) {
	switch p.balance {
	case First:
		for _, u := range p.upstreams {
			if u.usable(now, tried) {
				return u
			}
		}
	case LeastConnections:
		for _, u := range p.upstreams {
			if u.usable(now, tried) && (best == nil || u.active*int64(best.weight()) < best.active*int64(u.weight())) {
				best = u
			}
		}
	case SourceHash:
		var most float64
		for _, u := range p.upstreams {
			if score := u.score(source); u.usable(now, tried) && (best == nil || score > most) {
				best, most = u, score
			}
		}
	default:
		return p.inTurn(now, tried)
	}
	return best
}

// inTurn is smooth weighted round robin: of weights 5, 1, 1 it makes
// a a b a c a a.
func (p *pool) inTurn(now time.Duration, tried []*upstream) (best *upstream) {
	var total int64
	for _, u := range p.upstreams {
		if !u.usable(now, tried) {
			continue
		}
		w := int64(u.weight())
		u.current += w
		total += w
		if best == nil || u.current > best.current {
			best = u
		}
	}
	if best != nil {
		best.current -= total
	}
	return best
}

// score is of weighted rendezvous hashing: the highest has the source. When an
// upstream comes or goes, only its own sources move.
func (u *upstream) score(source netip.Addr) float64 {
	h := fnv.New64a()
	ip := source.As16()
	_, _ = h.Write(ip[:])             // never fails
	_, _ = h.Write([]byte(u.Address)) // never fails
	x := h.Sum64()                    // its low bits are all that differ: spread them (splitmix64)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	const unit = 1 << 53 // what a float64 holds exactly
	return -float64(u.weight()) / math.Log((float64(x>>11)+0.5)/unit)
}

// retryDown is when one that is down is tried again if nobody checks it.
const retryDown = 10 * time.Second

// took notes that a connection was made.
func (u *upstream) took() {
	u.connects++
	u.answered()
}

// answered notes that it is there.
func (u *upstream) answered() {
	u.failures = 0
	if u.down && u.health() == nil {
		u.turnTo(false, "")
	}
}

// refused notes that a connection could not be made.
func (u *upstream) refused(why string, now time.Duration) {
	u.failed++
	u.lastError = why
	u.failures++
	if u.down || u.failures >= u.fall() {
		u.tryAgain = now + retryDown
		if !u.down {
			u.turnTo(true, why)
		}
	}
}

// health is how it is checked; nil: it is not.
func (u *upstream) health() *HealthCheck {
	if u.owner == nil {
		return nil
	}
	return u.owner.spec.Health
}

func (u *upstream) fall() uint32 {
	if h := u.health(); h != nil {
		return orDefault(h.Fall, defaultFall)
	}
	return defaultFall
}

func (u *upstream) rise() uint32 {
	if h := u.health(); h != nil {
		return orDefault(h.Rise, 1)
	}
	return 1
}

// turnTo changes whether it is down, and tells.
func (u *upstream) turnTo(down bool, why string) {
	u.down, u.failures, u.successes = down, 0, 0
	if !down {
		u.tryAgain = 0
	}
	if f := u.owner; f != nil && f.l != nil {
		if down {
			f.l.set.log.Warn("upstream is left out", "listener", f.l.Name, "upstream", u.Address, "error", why)
		} else {
			f.l.set.log.Info("upstream is back", "listener", f.l.Name, "upstream", u.Address)
		}
		if tell := f.l.set.upstream; tell != nil {
			tell(f.l, u.status(), why)
		}
		if !down {
			f.unhold()
		}
	}
}

// errnoText is a system call's error for people: "connection refused
// (ECONNREFUSED)".
func errnoText(errno unix.Errno) string {
	return errno.Error() + " (" + unix.ErrnoName(errno) + ")"
}

// Upstreams is what is true of the upstreams now; nil of a handler without any.
// It is for the loop.
func (l *Listener) Upstreams() []UpstreamStatus {
	f, ok := inner(l.handler).(*forwarder)
	if !ok {
		return nil
	}
	var all []UpstreamStatus
	for _, p := range f.pools {
		for _, u := range p.upstreams {
			st := u.status()
			st.Names = p.names
			all = append(all, st)
		}
	}
	return all
}
