package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds a request on either side.
const patience = 10 * time.Second

// An Error is what the daemon refused, with its reason.
type Error struct{ Message, Reason string }

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Ask asks the daemon at path and returns the descriptors that it sent, each
// with its name, and the daemon's pid. The caller closes them. One that is being
// upgraded is asked again.
func Ask(path string, request Request) (names []string, files []int, pid int, err error) {
	for end := time.Now().Add(patience); ; {
		names, files, pid, err = ask(path, request)
		refused, ok := errors.AsType[*Error](err)
		if !ok || refused.Reason != "DAEMON_DRAINING" || time.Now().After(end) {
			return names, files, pid, err
		}
		timer := time.NewTimer(again)
		<-timer.C
	}
}

// again is how long to wait before that.
const again = 50 * time.Millisecond

func ask(path string, request Request) (names []string, files []int, pid int, err error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, nil, 0, err
	}
	defer func() { _ = conn.Close() }()
	cred, err := credentials(conn)
	if err != nil {
		return nil, nil, 0, err
	}
	text, err := json.Marshal(request)
	if err != nil {
		return nil, nil, 0, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, nil, 0, err
	}
	if _, err := conn.Write(text); err != nil {
		return nil, nil, 0, err
	}
	for more := true; more && err == nil; {
		var r Reply
		var some []int
		r, some, err = receive(conn)
		names, files, more = append(names, r.Names...), append(files, some...), r.More
	}
	if err == nil && len(names) != len(files) {
		err = fmt.Errorf("the daemon sent %d descriptors for %d names", len(files), len(names))
	}
	if err != nil {
		closeAll(files)
		return nil, nil, 0, err
	}
	return names, files, int(cred.Pid), nil
}

// Who is the pid of who answers at path.
func Who(path string) (int, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	cred, err := credentials(conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

func receive(conn *net.UnixConn) (r Reply, files []int, err error) {
	text, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*PerMessage))
	n, m, flags, _, err := conn.ReadMsgUnix(text, rights)
	if err != nil {
		return r, nil, err
	}
	files, err = Rights(rights[:m])
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0:
		err = errors.New("descriptors were lost on the way: raise the limit of open files (ulimit -n)")
	case n == 0:
		err = errors.New("the daemon hung up: its log says why")
	default:
		err = json.Unmarshal(text[:n], &r)
	}
	if err == nil && r.Error != "" {
		err = &Error{r.Error, r.Reason}
	}
	return r, files, err
}

// Rights returns the descriptors of a control message, close-on-exec as Go asks
// for them.
func Rights(control []byte) (files []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, some...)
	}
	return files, nil
}

func closeAll(files []int) {
	for _, fd := range files {
		_ = unix.Close(fd) // they are copies
	}
}

func credentials(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, os.NewSyscallError("getsockopt SO_PEERCRED", failed)
}
