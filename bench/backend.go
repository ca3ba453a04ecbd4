package main

import (
	"errors"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A backend is where forwarders send to. The load that measures a forwarder
// serves it too: a server of its own would want a CPU of its own.
type backend struct {
	tcp, udp         int // bound for the time of a workload
	stream, datagram netip.AddrPort
}

func openBackend() (b *backend, err error) {
	b = &backend{tcp: -1, udp: -1}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	const flags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	if b.tcp, b.stream, err = bindLoopback(unix.SOCK_STREAM | flags); err != nil {
		return b, err
	}
	if err := unix.Listen(b.tcp, 4096); err != nil {
		return b, os.NewSyscallError("listen", err)
	}
	b.udp, b.datagram, err = bindLoopback(unix.SOCK_DGRAM | flags)
	return b, err
}

// bindLoopback binds a socket to a port that the kernel chooses.
func bindLoopback(kind int) (int, netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, kind, 0)
	if err != nil {
		return -1, netip.AddrPort{}, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	in, ok := name.(*unix.SockaddrInet4)
	if err == nil && !ok {
		err = errors.New("getsockname: not an IPv4 address")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, netip.AddrPort{}, err
	}
	return fd, netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
}

func (b *backend) close() {
	for _, fd := range []int{b.tcp, b.udp} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// A backer makes what serves a connection that the forwarder has opened.
type backer func(fd int, now int64) client

// serve makes a load serve the backend: connections as answer does, nil sends back
// what comes; datagrams are sent back.
func (l *load) serve(b *backend, answer backer) error {
	tcp, err := unix.FcntlInt(uintptr(b.tcp), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := l.add(tcp, &acceptor{fd: tcp, answer: answer}); err != nil {
		return err
	}
	udp, err := unix.FcntlInt(uintptr(b.udp), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return l.add(udp, &mirror{fd: udp})
}

// served is what all of a backend are: they answer, and ask nothing.
type served struct{}

func (served) start(*load) error { return nil }
func (served) tick(*load) error  { return nil }
func (served) answered() uint64  { return 1 }

// acceptor takes what the forwarder connects.
type acceptor struct {
	served
	fd     int
	answer backer
}

func (a *acceptor) ready(l *load) error {
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(a.fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED:
		return nil
	default:
		return os.NewSyscallError("accept4", errno)
	}
	err := errors.Join(
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	if err != nil {
		return err
	}
	if a.answer != nil {
		return l.add(int(fd), a.answer(int(fd), l.now))
	}
	return l.add(int(fd), &echoer{fd: int(fd)})
}

var backendBuffer [256 << 10]byte // of the one thread that makes load

// echoer sends back what the forwarder passes on. The load never has more under
// way than a socket takes.
type echoer struct {
	served
	fd int
}

func (e *echoer) ready(l *load) error {
	n, err := read(e.fd, backendBuffer[:])
	if err != nil { // the forwarder ends connections of the round before
		l.drop(e.fd)
		return nil //nolint:nilerr // it ends, and that is all
	}
	if n == 0 {
		return nil
	}
	return write(e.fd, backendBuffer[:n])
}

// mirror sends datagrams back.
type mirror struct {
	served
	fd int
}

func (m *mirror) ready(*load) error {
	for range 64 {
		var from unix.RawSockaddrAny
		size := uint32(unsafe.Sizeof(from))
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(m.fd), uintptr(unsafe.Pointer(&backendBuffer[0])),
			uintptr(len(backendBuffer)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		switch errno {
		case 0:
		case unix.EAGAIN, unix.EINTR, unix.ECONNREFUSED: // a forwarder that has ended
			return nil
		default:
			return os.NewSyscallError("recvfrom", errno)
		}
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(m.fd), uintptr(unsafe.Pointer(&backendBuffer[0])), n,
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(size))
		if errno != 0 && errno != unix.EAGAIN && errno != unix.ECONNREFUSED { // what is lost is sent anew
			return os.NewSyscallError("sendto", errno)
		}
	}
	return nil
}
