package sockets

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// reasons are what errors of the kernel are beside their number.
var reasons = map[unix.Errno]listeners.Reason{
	unix.EADDRINUSE: listeners.AddressInUse, unix.EADDRNOTAVAIL: listeners.AddressNotAvailable,
	unix.EACCES: listeners.CapabilityMissing, unix.EPERM: listeners.CapabilityMissing,
	unix.EMFILE: listeners.LimitReached, unix.ENFILE: listeners.LimitReached,
	unix.ENOBUFS: listeners.LimitReached, unix.ENOMEM: listeners.LimitReached,
	unix.ETIMEDOUT: listeners.TimedOut, unix.EBADF: listeners.SocketNotFound, unix.EINVAL: listeners.SocketCallFailed,
}

// fixes are what would help.
var fixes = map[unix.Errno]string{
	unix.EAGAIN:      "wait until it is ready with Poll, or give the socket another timeout with SetTimeout",
	unix.EINPROGRESS: "wait until it is writable with Poll, and connect again to be told the outcome",
	unix.EMSGSIZE:    "send less at a time",
	unix.EADDRINUSE:  "take another address, or stop who has this one",
}

// refused says which call the kernel refused, and how. A Fault is said already.
func refused(name, words string, err error) error {
	errno, ok := errors.AsType[unix.Errno](err)
	if _, said := errors.AsType[*listeners.Fault](err); said || !ok {
		return err
	}
	reason, ok := reasons[errno]
	if !ok {
		reason = listeners.SocketCallFailed
	}
	return &listeners.Fault{
		Reason: reason, Message: fmt.Sprintf("%s: cannot %s", name, words), Err: err, Fix: fixes[errno],
		Meta: map[string]string{"socket": name},
	}
}

// timedOut is the end of the socket's own timeout.
func timedOut(s *Socket, c *call) error {
	return &listeners.Fault{
		Reason: listeners.TimedOut, Err: unix.ETIMEDOUT,
		Message: fmt.Sprintf("%s: cannot %s: the socket's timeout of %v ran out", s.name(), c.words, s.timeout),
		Meta:    map[string]string{"socket": s.name(), "timeout": s.timeout.String()},
	}
}

// gone is what EBADF is to a process: there is no such socket, or not any more.
func gone(id string) error {
	return &listeners.Fault{
		Reason: listeners.SocketNotFound, Message: fmt.Sprintf("there is no socket %q: it was closed, or was not used for its idle timeout", id),
		Err: os.NewSyscallError("find", unix.EBADF), Fix: "sockctl sock ls", Meta: map[string]string{"socket": id},
	}
}

func foreign(s *Socket, who Caller) error {
	return &listeners.Fault{
		Reason: listeners.RoleMissing, Message: fmt.Sprintf("%s belongs to %s: %s needs the role admin to use it", s.name(), s.owner, who.Name),
		Err: unix.EACCES, Fix: "make a socket of your own", Meta: map[string]string{"socket": s.name(), "owner": s.owner, "role": "admin"},
	}
}

// invalid is an argument that no call can be made with; the errno is the one
// that the kernel has for it.
func invalid(field, message string, errno unix.Errno) error {
	return &listeners.Fault{
		Reason: listeners.SpecInvalid, Message: field + ": " + message, Err: errno, Field: field,
	}
}

func draining() error {
	return &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is shutting down"}
}
