package listeners

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A Descriptor is a socket that is no listener's and no connection of one, in
// the words that those have for theirs. Loop only.
type Descriptor struct {
	FD      int
	Family  int
	Network Network
	Made    time.Time
}

func (d Descriptor) socket() *socket {
	return &socket{fd: d.FD, family: d.Family, addr: Address{Network: d.Network}, made: d.Made}
}

// Cookie is SO_COOKIE.
func (d Descriptor) Cookie() uint64 { return cookieOf(d.FD) }

// Local asks getsockname.
func (d Descriptor) Local() Address { return d.socket().local() }

// Remote asks getpeername; it has no more than a network when there is no peer,
// or one without a name.
func (d Descriptor) Remote() Address { return d.socket().peer() }

// Backlog is how many connections may wait to be accepted.
func (d Descriptor) Backlog() (uint32, error) {
	s := d.socket()
	_, limit, err := s.acceptQueue()
	return limit, err
}

// Set sets an option, with the reasons that Open has for a refusal.
func (d Descriptor) Set(o *Option, v Value) error {
	if s := d.socket(); o.isFor(s) {
		if err := o.Set(s, v); err != nil {
			return optionFault(o, v, err)
		}
	}
	return nil
}

// Tune sets an option and tells what came of it. Whether it is too late for one
// that a bound socket does not take is for the kernel to say.
func (d Descriptor) Tune(o *Option, v Value) Result {
	s := d.socket()
	r := Result{Option: o, Requested: v}
	r.Previous, _ = o.Get(s) // some can only be set
	if err := r.give(s); err != nil {
		r.fail(err)
	}
	return r
}

// InForce reads options from the kernel: those named, or all that the socket has.
func (d Descriptor) InForce(names []string) map[string]Value {
	s, values := d.socket(), map[string]Value{}
	for name, o := range (Spec{}).selectOptions(names) {
		if !o.OnSocket() || !o.isFor(s) {
			continue
		}
		if v, err := o.Get(s); err == nil { // this kernel may not know it
			values[name] = v
		}
	}
	return values
}

// TCPInfo is nil of what is not TCP.
func (d Descriptor) TCPInfo() (info *TCPInfo, congestion string) {
	got, err := d.socket().tcpInfo()
	if d.Network.Class() != OnTCP || err != nil {
		return nil, ""
	}
	congestion, _ = unix.GetsockoptString(d.FD, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	return &got, congestion
}

// Status asks the kernel for all that it says of a socket.
func (d Descriptor) Status(waits mux.Events) SocketStatus {
	s := d.socket()
	mem := s.memory()
	q := Queue{Drops: uint64(mem[MemDrops])}
	var state uint8
	if d.Network.Class() == OnTCP {
		if info, err := s.tcpInfo(); err == nil {
			state = info.State
		}
	}
	if listens, _ := unix.GetsockoptInt(d.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); listens != 0 {
		q.Accept, q.AcceptLimit, _ = s.acceptQueue() // unknown is 0
	} else {
		q.Receive, q.Send = s.bytes()
	}
	st := s.status(q, mem, waits)
	st.State = state
	return st
}

// CloseNow never waits, whatever SO_LINGER says.
func (d Descriptor) CloseNow() {
	if sec, on, err := sockLinger(d.FD); err == nil && on && sec > 0 {
		_ = unix.SetsockoptLinger(d.FD, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
	sysClose(d.FD)
}

// number is the socket's inode, which the kernel is asked for once; 0: it does not
// tell. Loop only.
func (s *socket) number() uint64 {
	var st unix.Stat_t
	if s.inode == 0 && s.fd >= 0 && unix.Fstat(s.fd, &st) == nil {
		s.inode = st.Ino
	}
	return s.inode
}

// AddressOf is the Address of what the kernel returned for a socket of n.
func AddressOf(n Network, sa unix.Sockaddr) Address { return addressOf(n, sa) }

// Sockaddr is a for a socket of that family: an IPv4 address is mapped for an
// IPv6 socket, which serves both unless it was told not to. What does not fit is
// left to the kernel to refuse.
func (a Address) Sockaddr(family int) (unix.Sockaddr, error) {
	switch ip := a.IP.Addr(); {
	case family == unix.AF_INET && a.dual(): // no host was named
		a.IP = netip.AddrPortFrom(netip.IPv4Unspecified(), a.IP.Port())
	case family == unix.AF_INET6 && ip.Is4():
		return &unix.SockaddrInet6{Addr: ip.As16(), Port: int(a.IP.Port())}, nil
	}
	sa, _, err := a.sockaddr()
	return sa, err
}

// SocketType is the type of n for socket(2).
func (n Network) SocketType() int { return n.kind().sock }

// Acquire counts in a descriptor that someone else makes on the loop of s.
func (s *Set) Acquire() error {
	if s.full() {
		return &Fault{
			Reason: LimitReached, Message: fmt.Sprintf("the daemon's limit of %d descriptors is reached", s.limit), Err: unix.EMFILE,
			Fix: "raise LimitNOFILE of the daemon, or stop what is not needed",
		}
	}
	s.used++
	return nil
}

// Release counts it out, once it is closed.
func (s *Set) Release() { s.released() }
