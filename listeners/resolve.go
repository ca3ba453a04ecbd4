package listeners

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// resolveTimeout bounds one lookup.
const resolveTimeout = 5 * time.Second

// resolve looks a name up, off the loop. What was known before stays in use
// until the answer is there, and when there is none.
func (f *forwarder) resolve(u *upstream) {
	set, network := f.l.set, u.network()
	set.offLoop.Go(func() {
		ctx, cancel := context.WithTimeout(set.ctx, resolveTimeout)
		defer cancel()
		ips, err := net.DefaultResolver.LookupNetIP(ctx, ipVersion(network), u.host)
		_ = set.loop.Post(func() { u.resolved(ips, err, set.loop.Clock()) }) // ended: nobody asks any more
	})
}

// ipVersion is what LookupNetIP calls it.
func ipVersion(n Network) string {
	switch n {
	case TCP4, UDP4:
		return "ip4"
	case TCP6, UDP6:
		return "ip6"
	default:
		return "ip"
	}
}

// resolved takes the answer.
func (u *upstream) resolved(ips []netip.Addr, err error, now time.Duration) {
	if err != nil || len(ips) == 0 {
		u.lastError = "resolve: no address"
		if err != nil {
			u.lastError = "resolve: " + err.Error()
		}
		if len(u.addrs) == 0 && !u.down {
			u.turnTo(true, u.lastError)
		}
		u.resolveAt = min(u.resolveAt, now+resolveAgain)
		if f := u.owner; f != nil && f.l != nil {
			f.l.set.loop.Arm(&f.timer, u.resolveAt, f)
		}
		return
	}
	addrs := make([]Address, 0, len(ips))
	for _, ip := range ips {
		addrs = append(addrs, Address{Network: u.network(), IP: netip.AddrPortFrom(ip.Unmap(), u.port)})
	}
	slices.SortFunc(addrs, func(a, b Address) int { return a.IP.Compare(b.IP) }) // so that an answer in another order is the same
	first := len(u.addrs) == 0
	u.addrs = addrs
	switch {
	case first && u.down: // it was, for want of an address
		u.turnTo(false, "")
	case first && u.owner != nil:
		u.owner.unhold()
	}
}

// resolveAgain is how soon a name is asked for again that could not be resolved.
const resolveAgain = 3 * time.Second
