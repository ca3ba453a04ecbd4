package listeners

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lookAt asks the kernel what a descriptor is.
func lookAt(b Returned) (*returned, error) {
	r := &returned{name: b.Name, fd: b.FD}
	var err error
	if r.sock, err = unix.GetsockoptInt(b.FD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, os.NewSyscallError("getsockopt SO_TYPE", err)
	}
	if r.local, err = unix.Getsockname(b.FD); err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	listens, err := unix.GetsockoptInt(b.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_ACCEPTCONN", err)
	}
	r.accepts = listens != 0
	listener, cookie, dev, ino, ours := parseKept(b.Name)
	if !ours {
		return r, nil
	}
	if r.listener, r.cookie, r.dev, r.ino = listener, cookie, dev, ino; cookie != cookieOf(b.FD) {
		return nil, errors.New("it is not the socket that was stored under this name")
	}
	return r, nil
}

// String names it for the log.
func (r *returned) String() string {
	_, isUnix := r.local.(*unix.SockaddrUnix)
	for _, n := range OnAll.Networks() {
		if n.kind().sock == r.sock && isUnix == !n.ip() {
			return fmt.Sprintf("%s (%v)", r.name, addressOf(n, r.local))
		}
	}
	return r.name
}

// at is where it is bound, whatever the network.
func (r *returned) at() Address { return addressOf("", r.local) }

// isFor reports whether it is a socket that is bound at a for a listener. One
// that is not ours is for who asks for its address, or, by its name, for any
// port.
func (r *returned) isFor(a Address, listener string) bool {
	if r.listener != "" && r.listener != listener || r.sock != a.Network.kind().sock {
		return false
	}
	is := addressOf(a.Network, r.local)
	if !a.Network.ip() {
		_, isUnix := r.local.(*unix.SockaddrUnix)
		return isUnix && is.Path == a.Path
	}
	if !is.IP.IsValid() || a.IP.Port() == 0 && r.listener == "" && r.name != listener {
		return false
	}
	if all := r.listener != "" && a.dual() && is.IP == withIPv4(is).IP; !all && is.IP.Addr() != a.IP.Addr() {
		return false // all: a kernel without IPv6
	}
	return (a.IP.Port() == 0 || is.IP.Port() == a.IP.Port()) && r.sameVersions(a)
}

// serves reports whether it is in a state to serve. A Unix socket that was shut
// cannot listen again, nor is one of use whose path has gone to another.
func (r *returned) serves(a Address) bool {
	if a.Network.ip() {
		return !r.isDeaf()
	}
	return (r.sock == unix.SOCK_DGRAM || r.accepts) && r.hasPath(a)
}

// hasPath reports whether the path is the socket's still. Of a socket that is not
// ours only its name is known.
func (r *returned) hasPath(a Address) bool {
	if a.abstract() || r.listener == "" {
		return true
	}
	s := socket{addr: a, dev: r.dev, ino: r.ino}
	_, err := s.pathMode()
	return err == nil
}

// sameVersions reports whether an IPv6 socket serves IPv4 too just when one at a
// does.
func (r *returned) sameVersions(a Address) bool {
	if _, ok := r.local.(*unix.SockaddrInet6); !ok || !a.IP.Addr().IsUnspecified() {
		return true
	}
	only, err := unix.GetsockoptInt(r.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && (only == 0) == a.dual()
}

// isDeaf reports whether it is a datagram socket of IPv6 that was refusing: see
// packetSocket.stuck.
func (r *returned) isDeaf() bool {
	_, v6 := r.local.(*unix.SockaddrInet6)
	_, err := unix.Getpeername(r.fd)
	return v6 && r.sock == unix.SOCK_DGRAM && err == nil
}

// reclaim makes a socket of a listener of what came back: what was there for the
// time being goes, and the options are those of spec.
func (k *Kept) reclaim(r *returned, a Address, spec Spec) (*socket, error) {
	s := &socket{fd: r.fd, family: unix.AF_INET, asked: a, addr: a, made: time.Now(), back: r, kept: k, foreign: r.listener == "", lent: true}
	switch r.local.(type) {
	case *unix.SockaddrInet6:
		s.family = unix.AF_INET6
	case *unix.SockaddrUnix:
		s.family, s.dev, s.ino = unix.AF_UNIX, r.dev, r.ino
		var st unix.Stat_t
		if s.foreign && !a.abstract() && unix.Lstat(a.Path, &st) == nil {
			s.dev, s.ino = st.Dev, st.Ino
		}
	}
	if s.foreign {
		s.foreignName = r.name
	} else {
		s.stored = r.name
	}
	err := errors.Join(
		os.NewSyscallError("fcntl O_NONBLOCK", unix.SetNonblock(s.fd, true)), // a program may have had it
		s.identify(), s.connectToNobody(r.sock),
	)
	if !s.foreign { // whose filter is its own
		err = errors.Join(err, detachFilter(s.fd))
	}
	if err != nil {
		return s, err
	}
	if !r.accepts {
		if err := s.bindAgain(); err != nil {
			return s, err
		}
	}
	if s.addr.Network.ip() {
		unsteer(s.fd)
	}
	_ = errors.Join(s.prepareAny(a), s.reuse(a)) // one that is ours has that
	for name, v := range spec.Options {
		if o := LookupOption(name); o.OnSocket() && o.Name != backlog && o.Name != unixMode && o.Name != multicastGroups && o.isFor(s) {
			_ = o.Set(s, v) // what is refused stays as it is: see recheck
		}
	}
	return s, nil
}

// connectToNobody lets a datagram socket that refused hear everybody again.
func (s *socket) connectToNobody(kind int) error {
	if _, err := unix.Getpeername(s.fd); err != nil || kind != unix.SOCK_DGRAM {
		return nil //nolint:nilerr // it has no peer
	}
	return disconnect(s.fd)
}

// recheckPerTurn bounds how many listeners one turn of the loop looks at: each
// takes about a hundred system calls.
const recheckPerTurn = 2

// recheck looks later, when clients are served already, at the options of a
// listener whose sockets came back.
func (s *Set) recheck(l *Listener) {
	if s.rechecks = append(s.rechecks, l); len(s.rechecks) == 1 && !s.restoring {
		_ = s.loop.Post(s.recheckSome) // fails when the loop has ended
	}
}

// Restoring says that more listeners come whose clients wait: what can be done
// later is, once there are no more. Loop only.
func (s *Set) Restoring(on bool) {
	if s.restoring = on; !on && len(s.rechecks) > 0 {
		_ = s.loop.Post(s.recheckSome) // fails when the loop has ended
	}
}

func (s *Set) recheckSome() {
	n := min(recheckPerTurn, len(s.rechecks))
	for _, l := range s.rechecks[:n] {
		for _, e := range l.endpoints {
			if s := e.sock(); !s.replaced && !s.beside { // a change goes on there
				s.reset(l.spec)
			}
		}
	}
	if s.rechecks = s.rechecks[n:]; len(s.rechecks) > 0 {
		_ = s.loop.Post(s.recheckSome)
		return
	}
	s.rechecks = nil
}

// reset gives a socket the options of spec, and the defaults where there are
// none: what was tried, or was being changed when the process before ended, is
// not wanted. What the kernel does not take any more stays as it is: a
// connection that waits is worth more than an option.
func (s *socket) reset(spec Spec) {
	locks := 0
	for name := range spec.Options {
		locks |= LookupOption(name).lock
	}
	for _, o := range spec.rows() {
		if !o.OnSocket() || o.Name == backlog || o.Name == unixMode || !o.isFor(s) {
			continue
		}
		want := spec.option(o)
		switch {
		case o.Name == multicastGroups:
			s.recallGroups(want)
			_ = o.Set(s, want)
		case want.typ != Null:
			if got, err := o.Get(s); err == nil && got != want {
				_ = o.Set(s, want)
			}
		case s.foreign || locks != 0 && (o.lock&locks != 0 || o.Name == bufferLock):
			// not ours to change; or the size is wanted, and so that it stays
		default:
			def, ok := s.defaultOf(o)
			if got, err := o.Get(s); ok && err == nil && got != def {
				_ = o.Reset(s)
			}
		}
	}
}

// recallGroups finds out which of the wanted groups the socket is in already.
func (s *socket) recallGroups(want Value) {
	groups, _ := parseGroups(want.text) // it has been checked
	for _, g := range groups {
		if in, err := s.isIn(g); err == nil && in && !slices.Contains(s.groups, g) {
			s.groups = append(s.groups, g)
		}
	}
}

// A defaultKey is what a default depends on.
type defaultKey struct {
	option string
	family int
	sock   int
}

var defaults sync.Map // of Value by defaultKey

// defaultOf is what a new socket of that kind has.
func (s *socket) defaultOf(o *Option) (Value, bool) {
	key := defaultKey{o.Name, s.family, s.addr.Network.kind().sock}
	if v, ok := defaults.Load(key); ok {
		return v.(Value), true
	}
	fd, err := unix.Socket(s.family, key.sock|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Value{}, false
	}
	defer sysClose(fd)
	v, err := o.Get(&socket{fd: fd, family: s.family, addr: s.addr, asked: s.asked})
	if err != nil {
		return Value{}, false
	}
	defaults.Store(key, v)
	return v, true
}

// Lend returns copies of the listener's sockets for another program. From then on
// they are never shut, unless that is undone. Loop only.
func (l *Listener) Lend() (files []int, undo func(), err error) {
	var lent []*socket
	undo = func() {
		for _, s := range lent {
			s.lent = false
		}
	}
	for _, e := range l.endpoints {
		s := e.sock()
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return files, undo, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
		}
		files = append(files, fd)
		if !s.lent {
			s.lent, lent = true, append(lent, s)
		}
	}
	return files, undo, nil
}
