package listeners

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Of linux/inet_diag.h.
const (
	sizeofInetDiagReq = 56
	sizeofInetDiagMsg = 72
)

// SocketOwner asks sock_diag(7) whose the TCP socket of this host is that is
// connected from local to remote. A socket that nobody has open any more, as
// after a close, is root's to the kernel: that is ENOENT here.
func SocketOwner(local, remote netip.AddrPort) (uid uint32, inode uint64, err error) {
	ne, be := binary.NativeEndian, binary.BigEndian
	local, remote = netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	var body [sizeofInetDiagReq]byte
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	if local.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	ne.PutUint32(body[4:], ^uint32(0)) // any state
	be.PutUint16(body[8:], local.Port())
	be.PutUint16(body[10:], remote.Port())
	copy(body[12:], local.Addr().AsSlice())
	copy(body[28:], remote.Addr().AsSlice())
	ne.PutUint64(body[48:], ^uint64(0)) // any cookie
	msg, err := askDiag(body[:])
	if err != nil {
		return 0, 0, err
	}
	return parseInetDiag(msg)
}

func parseInetDiag(msg []byte) (uid uint32, inode uint64, err error) {
	ne := binary.NativeEndian
	gone := os.NewSyscallError("sock_diag", unix.ENOENT)
	if len(msg) < unix.SizeofNlMsghdr+sizeofInetDiagMsg || ne.Uint16(msg[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return 0, 0, gone
	}
	info := msg[unix.SizeofNlMsghdr:]
	if uid, inode = ne.Uint32(info[64:]), uint64(ne.Uint32(info[68:])); info[1] != unix.BPF_TCP_ESTABLISHED || inode == 0 {
		return 0, 0, gone
	}
	return uid, inode, nil
}
