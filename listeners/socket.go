package listeners

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A socket is one bound descriptor of a listener, or a connection seen as one
// while an option is read or set. Its owner closes it, explicitly.
type socket struct {
	fd     int // -1 once closed
	family int
	asked  Address // as in the Spec
	addr   Address // bound: port 0 resolved
	inode  uint64  // 0: nobody has asked for it yet, see number
	peak   uint32  // most that waited to be accepted, as sampled
	dev    uint64  // and ino, of the path of a Unix socket
	ino    uint64
	made   time.Time

	shut     bool    // refuses clients: see refuse
	lost     bool    // somebody else has shut or destroyed it: see heal.go
	replaced bool    // another is to have, or has, its address: see rebind.go
	beside   bool    // it is that other
	groups   []group // multicast, that it has joined
	paired   bool    // and with the one that it replaces it is alone there

	kept        *Kept  // nil: nobody keeps a copy
	stored      string // the name of the copy; empty: there is none
	foreign     bool   // it is systemd's, and goes back when it is closed
	foreignName string
	lent        bool      // another program has it too: it is closed, never shut
	back        *returned // it came back, and is on no loop yet
}

// bind makes a socket for a, with the options of spec that apply, and binds it.
// It does not listen yet, so nobody can connect.
func bind(a Address, spec Spec) (_ *socket, err error) {
	sa, family, err := a.sockaddr()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, a.Network.kind().sock|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) && a.dual() {
		s, err := bind(withIPv4(a), spec) // a kernel without IPv6: all addresses are the IPv4 ones
		if err == nil {
			s.asked = a
		}
		return s, err
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, family: family, asked: a, addr: a, made: time.Now()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.prepare(a); err != nil {
		return nil, err
	}
	for _, o := range spec.socketRows() {
		if v := spec.option(o); o.OnSocket() && o.Name != backlog && o.Name != unixMode && o.isFor(s) && v.typ != Null {
			if err := o.Set(s, v); err != nil {
				return nil, optionFault(o, v, err)
			}
		}
	}
	if err := s.bindTo(sa, spec); err != nil {
		return nil, err
	}
	return s, s.identify()
}

// prepare sets what is not for the operator to choose.
func (s *socket) prepare(a Address) error {
	if s.family != unix.AF_INET6 {
		return s.prepareAny(a)
	}
	only := 1 // udp6://, tcp6:// and every single address
	if a.dual() {
		only = 0
	}
	return errors.Join(s.prepareAny(a), os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)))
}

// prepareAny sets those of them that can be set on a bound socket too.
func (s *socket) prepareAny(a Address) error {
	if a.Network.Class() != OnUDP || !a.IP.Addr().IsUnspecified() {
		return nil
	}
	// Replies must leave from the address that was asked.
	level, number := unix.IPPROTO_IP, unix.IP_PKTINFO
	if s.family == unix.AF_INET6 {
		level, number = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, level, number, 1))
}

// reuse lets the next start have a port of which connections are still closing, from
// the first start on. A socket that bind makes has it by the table.
func (s *socket) reuse(a Address) error {
	if a.Network.Class() != OnTCP {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_REUSEADDR", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
}

func (s *socket) bindTo(sa unix.Sockaddr, spec Spec) error {
	if s.family != unix.AF_UNIX || s.addr.abstract() {
		var err error
		if v4, ok := sa.(*unix.SockaddrInet4); ok {
			err = sysBind4(s.fd, v4)
		} else {
			err = unix.Bind(s.fd, sa)
		}
		if err != nil {
			return bindFault(s.addr, err)
		}
		return nil
	}
	return s.bindPath(sa, modeOf(spec.option(LookupOption(unixMode))))
}

// bindPath binds a Unix socket to a path that has the mode from the first
// moment on. What nobody answers on there is taken away first.
func (s *socket) bindPath(sa unix.Sockaddr, mode os.FileMode) error {
	defer lockDirectory(s.addr.Path)()
	// Before bind, so that the path never has more permissions than it shall;
	// after it, because the umask takes some away.
	if err := unix.Fchmod(s.fd, uint32(mode)); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := RemoveStale(s.addr); err != nil {
		return err
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		return bindFault(s.addr, err)
	}
	s.dev, s.ino = 0, 0 // whatever is there now
	return s.chmodPath(mode)
}

// identify asks the kernel what it bound.
func (s *socket) identify() error {
	if ip := s.asked.IP; s.asked.Network.ip() && ip.Addr().Is4() && ip.Port() != 0 {
		return nil // bind(2) takes just that, or fails
	}
	a, err := s.bound()
	if err == nil {
		s.addr = a
	}
	return err
}

// bound is where the kernel says that it is.
func (s *socket) bound() (Address, error) {
	n := s.addr.Network
	if !n.ip() {
		sa, err := unix.Getsockname(s.fd)
		return addressOf(n, sa), os.NewSyscallError("getsockname", err)
	}
	var name unix.RawSockaddrAny // x/sys asks for SO_PROTOCOL too
	if errno := sysGetsockname(s.fd, &name); errno != 0 {
		return Address{}, os.NewSyscallError("getsockname", errno)
	}
	return Address{Network: n, IP: withZoneName(peerAddr(&name))}, nil
}

// close also takes away the path, if it is still this socket's, and the copy that
// is kept: a socket lives until its last copy is closed.
func (s *socket) close() {
	if s.fd < 0 {
		return
	}
	if s.foreign || s.stored != "" && s.ino == 0 && s.kept.ending.Load() { // what has a path takes that with it
		s.leaveBehind()
		return
	}
	if s.stored != "" {
		s.kept.remove(s.stored)
		if !s.addr.Network.Datagram() && !s.lent {
			_ = unix.Shutdown(s.fd, unix.SHUT_RD) // until the copy is closed, clients would wait for nobody
		}
	}
	if s.ino != 0 {
		if _, err := s.pathMode(); err == nil {
			_ = unix.Unlink(s.addr.Path) // it stays behind: the next start finds it stale
		}
	}
	_ = unix.Close(s.fd)
	s.fd = -1
}

// leaveBehind closes a socket that another process goes on with.
func (s *socket) leaveBehind() {
	if s.foreign && !s.kept.ending.Load() { // another listener may ask for it
		if r, err := lookAt(Returned{Name: s.foreignName, FD: s.fd}); err == nil {
			s.kept.giveBack(r)
			s.fd = -1
			return
		}
	}
	_ = unix.Close(s.fd)
	s.fd = -1
}

func withIPv4(a Address) Address {
	v4, err := parseIP(a.Network, fmt.Sprintf("0.0.0.0:%d", a.IP.Port()))
	if err == nil {
		a.IP = v4
	}
	return a
}

// optionFault says that the kernel refused an option.
func optionFault(o *Option, v Value, err error) *Fault {
	f := &Fault{Reason: SpecInvalid, Message: fmt.Sprintf("option %s=%v was refused by the kernel", o.Name, v), Err: err, Field: "spec.options." + o.Name}
	switch {
	case errors.Is(err, unix.EPERM) && o.Capability != "":
		f.Reason = CapabilityMissing
		f.Message = fmt.Sprintf("option %s needs %s", o.Name, o.Capability)
		f.Meta = map[string]string{"capability": o.Capability}
	case (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && o.IsRaw(): // SO_DEBUG says EACCES
		f.Reason = CapabilityMissing
		f.Message = fmt.Sprintf("option %s=%v needs a capability that the daemon does not have", o.Name, v)
	case errors.Is(err, unix.ENOPROTOOPT) && o.IsRaw():
		f.Reason = OptionUnsupported
		f.Message = fmt.Sprintf("this kernel does not know option %s, or does not let it be set on such a socket", o.Name)
	case errors.Is(err, unix.ENOPROTOOPT):
		f.Reason, f.Message = OptionUnsupported, fmt.Sprintf("this kernel does not know option %s (%s)", o.Name, o.Kernel)
	}
	return f
}

// bindFault explains what bind(2) said.
func bindFault(a Address, err error) error {
	f := &Fault{Reason: SpecInvalid, Message: fmt.Sprintf("cannot bind %v", a), Err: os.NewSyscallError("bind", err)}
	f.Meta = map[string]string{"address": a.String()}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return inUse(a)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		f.Reason = AddressNotAvailable
		f.Message = fmt.Sprintf("%v is not an address of this host", a)
		f.Fix = "ip addr lists the addresses of this host; [::] and 0.0.0.0 are all of them"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		f.Reason = CapabilityMissing
		if a.Network.ip() {
			f.Message = fmt.Sprintf("%v needs CAP_NET_BIND_SERVICE: port %d is privileged", a, a.IP.Port())
			f.Fix = "give the daemon AmbientCapabilities=CAP_NET_BIND_SERVICE, lower net.ipv4.ip_unprivileged_port_start, or take a port above 1023"
			f.Meta["capability"] = "CAP_NET_BIND_SERVICE"
		} else {
			f.Message = fmt.Sprintf("the daemon may not make %v", a)
			f.Fix = "let the daemon's user write in the directory"
		}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		f.Message = fmt.Sprintf("the directory of %v is not there", a)
		f.Fix = "make the directory first"
	}
	return f
}

// inUse names who has the address, where /proc tells.
func inUse(a Address) error {
	f := &Fault{
		Reason: AddressInUse, Err: os.NewSyscallError("bind", unix.EADDRINUSE),
		Message: fmt.Sprintf("%v is in use (EADDRINUSE)", a), Meta: map[string]string{"address": a.String()},
	}
	h, ok := holderOf(a)
	if ok {
		f.Message += fmt.Sprintf(", held by %s (pid %d)", h.command, h.pid)
		f.Meta["holder_pid"], f.Meta["holder_command"] = fmt.Sprint(h.pid), h.command
		f.Meta["holder_inode"] = fmt.Sprint(h.inode)
	}
	f.Fix = "take another address, or stop who has this one"
	return f
}
