package listeners

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the data path go to the kernel directly. They never block, all
// sockets being non-blocking, so telling Go's scheduler of each would only cost
// (13 to 21 % of the CPU of an echo).

func sysRecv(fd int, p []byte, flags int) (int, unix.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags), 0, 0)
	return int(n), errno
}

// sysSend never raises SIGPIPE.
func sysSend(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func sysAccept(fd int, from *unix.RawSockaddrAny) (int, unix.Errno) {
	size := uint32(unix.SizeofSockaddrAny)
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(from)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(n), errno
}

func sysGetsockname(fd int, name *unix.RawSockaddrAny) unix.Errno {
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&size)))
	return errno
}

// sysClose may be used on sockets that do not linger only.
func sysClose(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func sysMmsg(call uintptr, fd int, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
		uintptr(len(msgs)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func sysRecvmsg(fd int, msg *unix.Msghdr) (int, unix.Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(msg)), unix.MSG_DONTWAIT)
	return int(n), errno
}

// sysSendTo sends one datagram: all of it, or it fails. Connected sockets have
// no to.
func sysSendTo(fd int, p []byte, to *unix.RawSockaddrAny, toLen uint32) unix.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(to)), uintptr(toLen))
	return errno
}

// sysSetInt is setsockopt(2) of an int. Of sockets, and of TCP, it never waits; the
// other levels have some that may wait for a lock of the whole network.
func sysSetInt(fd, level, number, value int) error {
	if level != unix.SOL_SOCKET && level != unix.IPPROTO_TCP {
		return unix.SetsockoptInt(fd, level, number, value)
	}
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(number),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return errorOf(errno)
}

func sysListen(fd, backlog int) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_LISTEN, uintptr(fd), uintptr(backlog), 0)
	return errorOf(errno)
}

// sysBind4 is bind(2) to an IPv4 address. One to a path may wait for a disk, and is
// not called so.
func sysBind4(fd int, to *unix.SockaddrInet4) error {
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(uint16(to.Port)), Addr: to.Addr}
	_, _, errno := syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&raw)), unsafe.Sizeof(raw))
	return errorOf(errno)
}

// errorOf is nil for 0.
func errorOf(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// getsockopt fills *v and returns how many bytes the kernel had for it.
func getsockopt[T any](fd, level, number int, v *T) (int, error) {
	size := uint32(unsafe.Sizeof(*v))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(number),
		uintptr(unsafe.Pointer(v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("getsockopt", errno)
	}
	return int(size), nil
}

// sockLinger reads SO_LINGER, for which x/sys has a setter only.
func sockLinger(fd int) (seconds int32, on bool, err error) {
	var l unix.Linger
	_, err = getsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l)
	return l.Linger, l.Onoff != 0, err
}

// cookieOf returns SO_COOKIE: the socket's number for as long as the machine
// is up, the one that ss -e prints.
func cookieOf(fd int) (cookie uint64) {
	_, _ = getsockopt(fd, unix.SOL_SOCKET, unix.SO_COOKIE, &cookie) // fails on nothing that is a socket
	return cookie
}
