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
	ne := binary.NativeEndian
	var body [sizeofDiagReq]byte
	body[0] = unix.AF_UNIX
	ne.PutUint32(body[4:], ^uint32(0)) // any state
	ne.PutUint32(body[8:], uint32(inode))
	ne.PutUint32(body[12:], udiagShowRqlen)
	ne.PutUint64(body[16:], ^uint64(0)) // any cookie
	msg, err := askDiag(body[:])
	if err != nil {
		return 0, 0, err
	}
	return parseUnixDiag(msg)
}

// askDiag sends one request to sock_diag(7), and returns the answer.
func askDiag(body []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket sock_diag", err)
	}
	defer sysClose(fd)
	ne := binary.NativeEndian
	req := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	ne.PutUint32(req[0:], uint32(cap(req)))
	ne.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(req[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, append(req, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("send sock_diag", err)
	}
	buf := make([]byte, 1024) // the kernel has answered by now: this does not wait
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return nil, os.NewSyscallError("receive sock_diag", err)
	}
	return buf[:n], nil
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
