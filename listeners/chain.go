package listeners

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A forward that leads to a listener of our own may go on from there, but not
// in a circle: one client would take all descriptors. Where it leads is not to
// be told from names and addresses. But a connection that comes in between the
// very two addresses that a socket to an upstream has is what went out there.

// maxHops is how many forwards of ours may follow each other.
const maxHops = 8

var (
	errLoop = errors.New("the forward leads back to its own listener")
	errHops = fmt.Errorf("more than %d forwards follow each other", maxHops)
)

// An outlet is what names a socket to an upstream. Of a connection it is both
// ends: the kernel gives one port to several that lead to different places.
type outlet struct {
	datagram bool
	from, to netip.AddrPort
	path     string // its own, of a Unix socket
}

// A hop is one forward on the way, and those before it.
type hop struct {
	l      *Listener
	before *hop
	count  int
}

func connOutlet(from, to Address) outlet {
	if from.Path != "" {
		return outlet{path: from.Path}
	}
	return outlet{from: plain(from.IP), to: plain(to.IP)}
}

// datagramOutlet has one end only: two datagram sockets share no port unless
// both ask for it, and ours do not.
func datagramOutlet(from netip.AddrPort, path string) outlet {
	if name, ok := strings.CutPrefix(path, "\x00"); ok { // an abstract name, as the kernel has it
		path = "@" + name
	}
	return outlet{datagram: true, from: plain(from), path: path}
}

// plain is an address in one form, whoever has written it.
func plain(a netip.AddrPort) netip.AddrPort {
	if !a.IsValid() {
		return a
	}
	ip := a.Addr().Unmap().WithZone("")
	switch ip { // connect(2) takes these for this host
	case netip.IPv4Unspecified():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		ip = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(ip, a.Port())
}

// follow returns the way on from l of what comes from there; errLoop, errHops.
func (s *Set) follow(from outlet, l *Listener) (*hop, error) {
	next := &hop{l: l, count: 1}
	if before := s.outlets[from]; before != nil {
		next.before, next.count = before, before.count+1
	}
	for h := next.before; h != nil; h = h.before {
		if h.l == l {
			return nil, errLoop
		}
	}
	if next.count > maxHops {
		return nil, errHops
	}
	return next, nil
}

// goesOut notes whose socket it is, until closedOut.
func (s *Set) goesOut(fd int, to Address, h *hop) outlet {
	local := (&socket{fd: fd, addr: to}).local()
	out := connOutlet(local, to)
	if to.Network.Class()&OnDatagram != 0 {
		out = datagramOutlet(local.IP, local.Path)
	}
	if out.from.IsValid() || out.path != "" {
		s.outlets[out] = h
	}
	return out
}

// goesOn notes a socket that another process had. What was before it is not
// told: it was no loop, and one that was in the making goes round once more.
func (s *Set) goesOn(fd int, n Network, l *Listener) (*hop, outlet) {
	h := &hop{l: l, count: 1}
	return h, s.goesOut(fd, (&socket{fd: fd, addr: Address{Network: n}}).peer(), h)
}

// closedOut forgets it, unless the kernel has given the name to another since.
func (s *Set) closedOut(out outlet, h *hop) {
	if s.outlets[out] == h {
		delete(s.outlets, out)
	}
}

// follow finds out by what way the client came, and refuses what the relay's own
// listener has sent out.
func (r *relay) follow() (err error) {
	c, from := r.c, outlet{}
	if len(c.l.set.outlets) > 0 { // else nothing goes out at all
		if s := c.socket(); c.family == unix.AF_UNIX {
			from = connOutlet(s.peer(), Address{})
		} else {
			from = connOutlet(Address{IP: c.remote}, s.local())
		}
	}
	r.hop, err = c.l.set.follow(from, c.l)
	return err
}

// tellLoop counts, and logs once in a second.
func (l *Listener) tellLoop(err error) {
	l.stats.reject(RejectedLoop)
	if now := l.set.loop.Clock(); l.loopTold == 0 || now-l.loopTold >= time.Second {
		l.loopTold = now
		l.set.log.Warn("refused to forward: look at the upstreams, and where they lead", "listener", l.Name, "error", err)
	}
}
