package main

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bulkUnit is what counts as one answer where bytes only go one way.
const bulkUnit = 1 << 20

// bulkClient sends as much as the kernel takes.
type bulkClient struct {
	served
	fd int
}

func bulkTo(to netip.AddrPort) opener {
	return func() (int, client, error) {
		fd, err := dial(unix.SOCK_STREAM, to)
		return fd, &bulkClient{fd: fd}, err
	}
}

func (c *bulkClient) writes() {}

func (c *bulkClient) ready(*load) error { return fill(c.fd) }

// fill sends as much as the kernel takes.
func fill(fd int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&backendBuffer[0])), uintptr(len(backendBuffer)))
	if errno == 0 || errno == unix.EAGAIN || errno == unix.EINTR {
		return nil
	}
	return os.NewSyscallError("write", errno)
}

// bulkBothClient sends as much as the kernel takes, and reads what the other end
// sends: both ends of the forwarder are of this kind, and each counts what it reads.
type bulkBothClient struct{ sink }

func bulkBothTo(to netip.AddrPort) opener {
	return func() (int, client, error) {
		fd, err := dial(unix.SOCK_STREAM, to)
		return fd, bulkBoth(fd, clock()), err
	}
}

func bulkBoth(fd int, now int64) client { return &bulkBothClient{sink{fd: fd, since: now}} }

func (c *bulkBothClient) writes() {}

func (c *bulkBothClient) ready(l *load) error {
	if err := fill(c.fd); err != nil {
		l.drop(c.fd)
		return nil //nolint:nilerr // as in sink
	}
	return c.sink.ready(l)
}

// sink reads and drops what the forwarder passes on. The time of an answer is
// that of its bulkUnit.
type sink struct {
	served
	fd    int
	since int64
	got   int
}

func bulkSink(fd int, now int64) client { return &sink{fd: fd, since: now} }

func (s *sink) ready(l *load) error {
	n, err := read(s.fd, backendBuffer[:])
	if err != nil {
		l.drop(s.fd)
		return nil //nolint:nilerr // the forwarder ends connections of the round before
	}
	if s.got += n; s.got < bulkUnit {
		return nil
	}
	s.got -= bulkUnit
	l.now = clock()
	l.latency.add(l.now - s.since)
	s.since = l.now
	return nil
}
