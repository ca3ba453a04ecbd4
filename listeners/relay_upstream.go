package listeners

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// An upstreamConn is the upstream of a relay in a thread. What one of its two
// goroutines is told by the kernel, only once, the other learns too.
type upstreamConn struct {
	net.Conn
	writing sync.Mutex
	lost    error       // what a write failed with
	watched atomic.Bool // see gone
}

// Write is net.Conn.Write.
func (u *upstreamConn) Write(p []byte) (int, error) {
	u.writing.Lock()
	defer u.writing.Unlock()
	n, err := u.Conn.Write(p)
	if err != nil && !errors.Is(err, unix.EPIPE) { // which is of one that had finished
		u.lost = err
	}
	return n, err
}

// Read is net.Conn.Read. After an RST of which a write was told a read finds
// the end, which it is not.
func (u *upstreamConn) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	switch {
	case errors.Is(err, unix.EPIPE): // it has finished, and then reset: it takes no more
		return n, io.EOF
	case err == io.EOF && u.isClosed(): //nolint:errorlint // net.Conn returns it bare
		u.writing.Lock() // which nobody has for long: no write waits on such a socket
		defer u.writing.Unlock()
		if u.lost != nil {
			return n, u.lost
		}
	}
	return n, err
}

// CloseWrite tells it that no more will be sent.
func (u *upstreamConn) CloseWrite() error {
	return u.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// stop ends what waits.
func (u *upstreamConn) stop() { _ = u.SetDeadline(past) }

// isClosed reports whether the kernel is done with a TCP connection, as it is
// after an RST.
func (u *upstreamConn) isClosed() (closed bool) {
	c, ok := u.Conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err != nil || info.State == unix.BPF_TCP_CLOSE
	})
	return closed || err != nil
}

// gone waits, now that it has finished, until it is gone altogether: then it is
// true; or until nothing is left to be said to it, which other has once it is so.
func (u *upstreamConn) gone(other <-chan error) bool {
	raw, err := u.Conn.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	if err != nil {
		return false
	}
	u.watched.Store(true)
	gone := false
	_ = raw.Read(func(fd uintptr) bool { // it is called again whenever there are news
		if len(other) > 0 {
			return true
		}
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		gone = err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		return gone
	})
	return gone
}

// unwatch ends gone.
func (u *upstreamConn) unwatch() {
	if u.watched.Load() {
		_ = u.SetReadDeadline(past)
	}
}
