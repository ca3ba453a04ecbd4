package listeners

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// positions are how far a TCP connection has got by the kernel's count: nobody has
// to write down what a system call has done that was the last of a process.
type positions struct {
	consumed uint64 // bytes that were read of it
	written  uint64 // bytes that the kernel took
	broken   bool   // it was reset, or timed out
}

// positionsOf asks. The kernel counts a SYN that was sent, and a FIN, as a byte
// each: the FINs are taken out, a SYN is in what the first count says.
func positionsOf(fd int) (positions, error) {
	var before, after unix.TCPInfo
	for range 1000 { // what comes between two calls makes them differ
		_, err := getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, &before)
		if err != nil {
			return positions{}, err
		}
		unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		if err != nil {
			return positions{}, os.NewSyscallError("ioctl SIOCINQ", err)
		}
		unacked, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			return positions{}, os.NewSyscallError("ioctl SIOCOUTQ", err)
		}
		fds := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(fds, 0); err != nil && !errors.Is(err, unix.EINTR) {
			return positions{}, os.NewSyscallError("poll", err)
		}
		if _, err = getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, &after); err != nil {
			return positions{}, err
		}
		if before.State != after.State || before.Bytes_acked != after.Bytes_acked || before.Bytes_received != after.Bytes_received {
			continue
		}
		p := positions{consumed: after.Bytes_received - uint64(unread), written: after.Bytes_acked + uint64(unacked)}
		switch after.State {
		case unix.BPF_TCP_CLOSE_WAIT:
			p.consumed--
		case unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2:
			p.written--
		case unix.BPF_TCP_CLOSING, unix.BPF_TCP_LAST_ACK:
			p.consumed--
			p.written--
		case unix.BPF_TCP_CLOSE:
			if p.broken = fds[0].Revents&unix.POLLERR != 0; !p.broken { // both have finished
				p.consumed--
				p.written--
			}
		}
		return p, nil
	}
	return positions{}, errors.New("the kernel's counts do not stand still")
}

// disconnect takes the peer from a socket. A TCP connection is reset by that,
// whoever else has the socket.
func disconnect(fd int) error {
	unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec)); errno != 0 {
		return os.NewSyscallError("connect", errno)
	}
	return nil
}
