package fdstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/handover"
)

// A Notice is a message that has come, with its descriptors.
type Notice struct {
	Message
	Files []int
	PID   int32 // of the sender, as the kernel has it
	Lost  bool  // descriptors were: there was no room for them
}

// Bind makes the socket that the daemon sends to, at an abstract name that
// the kernel chooses. Whoever may send there is told by the kernel.
func Bind() (fd int, name string, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, "", os.NewSyscallError("socket", err)
	}
	err = errors.Join(
		os.NewSyscallError("setsockopt SO_PASSCRED", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)),
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{})), // five hex digits: unix(7), autobind
	)
	sa, errName := unix.Getsockname(fd)
	if err = errors.Join(err, errName); err != nil {
		_ = unix.Close(fd)
		return -1, "", err
	}
	return fd, sa.(*unix.SockaddrUnix).Name, nil
}

// Receive sends what comes to notices, in order, for as long as the process runs.
func Receive(fd int, notices chan<- Notice) {
	text := make([]byte, 4096)
	control := make([]byte, unix.CmsgSpace(4*handover.PerMessage)+unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, m, flags, _, err := unix.Recvmsg(fd, text, control, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			continue // EINTR, or no memory just now: it blocks otherwise
		}
		got := Notice{Message: Parse(string(text[:n])), Lost: flags&unix.MSG_CTRUNC != 0, PID: sender(control[:m])}
		got.Files, _ = handover.Rights(control[:m]) // what cannot be read has none
		if flags&unix.MSG_TRUNC != 0 {
			got.Message = Message{Heir: -1} // nothing that the daemon sends is so long
		}
		notices <- got
	}
}

// sender is the pid that the kernel says a message is from; 0 if it does not.
func sender(control []byte) int32 {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			return cred.Pid
		}
	}
	return 0
}
