package listeners

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The programs are classic BPF. On a TCP socket they see the segment from its
// header on, on others the datagram (net/core/filter.c, bpf(4)).
var (
	// dropSYN drops segments that ask for a new connection: SYN without ACK.
	// All others go on, so that handshakes which have begun are finished.
	dropSYN = []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // the flags
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	dropAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
)

func attachFilter(fd int, program []unix.SockFilter) error {
	p := &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, p))
}

// detachFilter is content when there is none.
func detachFilter(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_DETACH_FILTER", err)
}

// steer sends what is new for the port of fd to the socket of its
// SO_REUSEPORT group that joined as the n-th, from 0 on.
func steer(fd int, n uint32) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: n}}
	p := &unix.SockFprog{Len: 1, Filter: &program[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, p))
}

// unsteer lets the kernel share out connections by itself again.
func unsteer(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0) // ENOENT: there was none
}
