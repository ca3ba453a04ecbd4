package listeners

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// Some options the kernel takes only before bind, so that a change needs a new
// socket at the same address. It is bound beside the old one in a SO_REUSEPORT
// group, which the kernel shares connections out in, and nobody is refused at
// any time:
//
//	Share    the old one joins a group (on the loop)
//	Open     the new one is bound into it and listens (off the loop)
//	Extend   both accept
//	Settle   what is new is steered to the new one; the old one accepts for
//	         retireTime what had begun before, then takes what waits and closes

// retireTime is long enough for a handshake that has begun, even if a segment
// of it is lost and sent again.
const retireTime = 3 * time.Second

const reusePort = "reuse_port"

// A Share is an address at which a new socket takes the place of an old one.
type Share struct {
	asked, bound Address
	dev, ino     uint64 // of the path of a Unix socket
}

// Rebinds lists what s wants otherwise than old and only a new socket can have.
func (s Spec) Rebinds(old Spec) (names []string) {
	for _, o := range Options {
		if o.Effect == Rebind && s.Options[o.Name] != old.Options[o.Name] {
			names = append(names, o.Name)
		}
	}
	return names
}

// Share prepares for new sockets: in place of those that cannot be given the
// options of spec, and, if the listener is to be resumed, of Unix sockets that
// refuse, which cannot listen again. Unshare takes that back, Settle completes
// it. It is for the loop.
func (l *Listener) Share(spec Spec, resume bool) (shares []Share, err error) {
	for len(l.retired) > 0 {
		l.retired[0].Expired() // so that of each group one is left
	}
	names := spec.Rebinds(l.spec)
	for _, e := range l.endpoints {
		s := e.sock()
		needs := resume && e.stuck()
		for _, name := range names {
			needs = needs || LookupOption(name).isFor(s)
		}
		if !needs {
			continue
		}
		if s.addr.Network.ip() {
			if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				l.Unshare()
				return nil, named(l.Name, optionFault(LookupOption(reusePort), BoolValue(true), err))
			}
		}
		s.replaced = true
		shares = append(shares, Share{s.asked, s.addr, s.dev, s.ino})
	}
	return shares, nil
}

// Unshare lets the listener be as it was before Share.
func (l *Listener) Unshare() {
	for _, e := range l.endpoints {
		if s := e.sock(); s.replaced {
			s.replaced = false
			s.leaveGroup(l.spec)
		}
	}
}

// leaveGroup gives the socket the reuse_port that was asked for.
func (s *socket) leaveGroup(spec Spec) {
	if s.fd < 0 || !s.addr.Network.ip() {
		return
	}
	if v := spec.Options[reusePort]; v.n == 0 {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0) // a Bool that every IP socket has
	}
}

// bindShare binds a socket at an address that is in use by one of ours.
func bindShare(share Share, spec Spec) (*socket, error) {
	if !share.bound.Network.ip() {
		old := &socket{addr: share.bound, dev: share.dev, ino: share.ino}
		if _, err := old.pathMode(); err == nil {
			_ = unix.Unlink(share.bound.Path) // nobody was served there; what is wrong with it, bind tells
		}
		return bind(share.bound, spec)
	}
	s, err := bind(share.bound, spec.With(reusePort, BoolValue(true)))
	if err != nil {
		return nil, err
	}
	s.asked, s.beside = share.asked, true
	return s, nil
}

// findPairs finds out, for the sockets bound by bindShare, whether they and the ones
// that they replace, whether those two are all there is at their address. It
// reads /proc.
func (l *Listener) findPairs() {
	for _, e := range l.endpoints {
		if s := e.sock(); s.beside {
			s.paired = len(boundInodes(s.addr)) == 2
		}
	}
}

// part closes an endpoint without losing what has arrived. If another has its
// address now, that gets what is new.
func (l *Listener) part(e endpoint) {
	s := e.sock()
	var heir *socket
	for _, other := range l.endpoints {
		if o := other.sock(); o.fd >= 0 && o.addr == s.addr && s.addr.Network.ip() {
			heir = o
		}
	}
	if heir == nil || l.state == Draining {
		e.stop()
		return
	}
	if (heir.paired || s.paired) && !e.stuck() && l.paused != Refuse {
		place := uint32(0) // the group is in the order of listen(2)
		if heir.paired {
			place = 1
		}
		if err := steer(heir.fd, place); err != nil {
			l.set.log.Warn("a socket that is replaced gets connections until it closes", "listener", l.Name, "address", s.addr, "error", err)
		}
	}
	r := &retired{l: l, e: e, heir: heir}
	e.retire()
	l.retired = append(l.retired, r)
	l.set.loop.Arm(&r.timer, l.set.loop.Clock()+retireTime, r)
}

// retired is an endpoint whose address another has.
type retired struct {
	l     *Listener
	e     endpoint
	heir  *socket
	timer mux.Timer
}

// Expired closes it.
func (r *retired) Expired() {
	l := r.l
	l.set.loop.Disarm(&r.timer)
	l.retired = slices.DeleteFunc(l.retired, func(other *retired) bool { return other == r })
	r.e.stop()
	r.heir.beside, r.heir.paired = false, false
	if r.heir.fd >= 0 && !r.heir.replaced {
		unsteer(r.heir.fd)
		r.heir.leaveGroup(l.spec)
	}
}
