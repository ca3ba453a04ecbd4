package listeners

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Of linux/unix_diag.h.
const (
	udiagShowRqlen = 0x10
	unixDiagRqlen  = 4
	sizeofDiagReq  = 24
	sizeofDiagMsg  = 16
)

// unixQueue asks sock_diag(7) how many connections wait at a listening Unix
// socket, and how many may. There is no getsockopt for it.
func unixQueue(inode uint64) (waiting, limit uint32, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, 0, os.NewSyscallError("socket sock_diag", err)
	}
	defer sysClose(fd)
	ne := binary.NativeEndian
	var req [unix.SizeofNlMsghdr + sizeofDiagReq]byte
	ne.PutUint32(req[0:], uint32(len(req)))
	ne.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(req[6:], unix.NLM_F_REQUEST)
	body := req[unix.SizeofNlMsghdr:]
	body[0] = unix.AF_UNIX
	ne.PutUint32(body[4:], ^uint32(0)) // any state
	ne.PutUint32(body[8:], uint32(inode))
	ne.PutUint32(body[12:], udiagShowRqlen)
	ne.PutUint64(body[16:], ^uint64(0)) // any cookie
	if err := unix.Sendto(fd, req[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, 0, os.NewSyscallError("send sock_diag", err)
	}
	var buf [1024]byte // the kernel has answered by now: this does not wait
	n, _, err := unix.Recvfrom(fd, buf[:], 0)
	if err != nil {
		return 0, 0, os.NewSyscallError("receive sock_diag", err)
	}
	return parseUnixDiag(buf[:n])
}

func parseUnixDiag(msg []byte) (waiting, limit uint32, err error) {
	ne := binary.NativeEndian
	if len(msg) < unix.SizeofNlMsghdr+sizeofDiagMsg || ne.Uint16(msg[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return 0, 0, os.NewSyscallError("sock_diag", unix.ENOENT)
	}
	for attrs := msg[unix.SizeofNlMsghdr+sizeofDiagMsg:]; len(attrs) >= unix.SizeofRtAttr; {
		size, kind := int(ne.Uint16(attrs)), ne.Uint16(attrs[2:])
		if size < unix.SizeofRtAttr || size > len(attrs) {
			break
		}
		if value := attrs[unix.SizeofRtAttr:size]; kind == unixDiagRqlen && len(value) >= 8 {
			return ne.Uint32(value), ne.Uint32(value[4:]), nil
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return 0, 0, os.NewSyscallError("sock_diag", unix.ENODATA)
}
