package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A load is one closed loop on one thread: every client has a fixed number of
// requests under way and sends the next when an answer has come. It spins on
// epoll with a zero timeout, so that a server never pays for waking it.
type load struct {
	epoll   int
	clients []client // by descriptor
	latency histogram
	now     int64 // of the turn, ns since epoch
	lost    uint64

	addresses int // that connections of fill came from
}

// A client is one socket of a load.
type client interface {
	// start sends the first requests.
	start(*load) error
	// ready is called when there is something to read.
	ready(*load) error
	// tick is called every tickEvery.
	tick(*load) error
	// answered is how many answers have come in all.
	answered() uint64
}

const (
	warmUp    = 200 * time.Millisecond
	tickEvery = int64(20 * time.Millisecond)
	stallTime = int64(5 * time.Second)
)

// sample is what one window of a load measured.
type sample struct {
	rate     float64 // answers a second
	p50, p99 time.Duration
	p999     time.Duration
	cpu      time.Duration // of the server for one answer
	lost     uint64        // datagrams without an answer
	starved  int           // clients without an answer in warm-up and window
	others   float64       // CPUs used by other processes meanwhile
}

var errNoAnswer = errors.New("no answer in the whole window")

var epoch = time.Now()

func clock() int64 { return int64(time.Since(epoch)) }

// newLoad opens n clients. close must be called even after an error.
func newLoad(n int, open func() (int, client, error)) (*load, error) {
	l := &load{}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return l, os.NewSyscallError("epoll_create1", err)
	}
	return l, l.open(n, open)
}

// open opens n more clients.
func (l *load) open(n int, open func() (int, client, error)) error {
	for i := range n {
		fd, c, err := open()
		if err != nil {
			return fmt.Errorf("client %d of %d: %w", i+1, n, err)
		}
		if err := l.add(fd, c); err != nil {
			return err
		}
	}
	return nil
}

// A writer is a client that waits for room to write too.
type writer interface {
	writes()
}

// add makes the load call a client when its socket is ready, and close it at the
// end.
func (l *load) add(fd int, c client) error {
	for len(l.clients) <= fd {
		l.clients = append(l.clients, nil)
	}
	l.clients[fd] = c
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if _, ok := c.(writer); ok {
		ev.Events |= unix.EPOLLOUT
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

// drop closes a socket before the end.
func (l *load) drop(fd int) {
	l.clients[fd] = nil
	_ = unix.Close(fd)
}

// close closes every client's socket.
func (l *load) close() {
	for fd, c := range l.clients {
		if c != nil {
			_ = unix.Close(fd)
		}
	}
	_ = unix.Close(l.epoll)
}

// each calls f for every client.
func (l *load) each(f func(client) error) error {
	for _, c := range l.clients {
		if c != nil {
			if err := f(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure warms up, then measures for window. pid is the server's.
func (l *load) measure(ctx context.Context, pid int, window time.Duration) (sample, error) {
	var s sample
	l.now = clock()
	if err := l.each(func(c client) error { return c.start(l) }); err != nil {
		return s, err
	}
	if err := l.turnUntil(ctx, l.now+int64(min(warmUp, window)), nil); err != nil {
		return s, err
	}
	l.latency.reset()
	l.lost = 0
	begin, before := l.now, usage(pid)
	if err := l.turnUntil(ctx, l.now+int64(window), nil); err != nil {
		return s, err
	}
	used, took := usage(pid).since(before), l.now-begin
	if l.latency.n == 0 {
		return s, errNoAnswer
	}
	_ = l.each(func(c client) error {
		if c.answered() == 0 {
			s.starved++
		}
		return nil
	})
	s.rate = float64(l.latency.n) / time.Duration(took).Seconds()
	s.p50 = time.Duration(l.latency.quantile(0.50))
	s.p99 = time.Duration(l.latency.quantile(0.99))
	s.p999 = time.Duration(l.latency.quantile(0.999))
	s.cpu = used.server / time.Duration(l.latency.n)
	s.lost = l.lost
	s.others = used.others.Seconds() / time.Duration(took).Seconds()
	return s, nil
}

// turnUntil turns the loop until the clock says end or done says so.
func (l *load) turnUntil(ctx context.Context, end int64, done func() bool) error {
	var events [512]unix.EpollEvent
	nextTick, lastAnswer := l.now+tickEvery, l.now
	for l.now = clock(); l.now < end && (done == nil || !done()); l.now = clock() {
		n, err := epollPoll(l.epoll, events[:])
		if err != nil {
			return err
		}
		for _, ev := range events[:n] {
			c := l.clients[ev.Fd]
			if c == nil {
				continue // dropped in this turn
			}
			if err := c.ready(l); err != nil {
				return err
			}
		}
		if n > 0 {
			lastAnswer = l.now
		} else if l.now-lastAnswer > stallTime {
			return fmt.Errorf("no answer for %v", time.Duration(stallTime))
		}
		if l.now < nextTick {
			continue
		}
		nextTick = l.now + tickEvery
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := l.each(func(c client) error { return c.tick(l) }); err != nil {
			return err
		}
	}
	return nil
}

// epollPoll asks what is ready now. It cannot block, so it is made raw,
// without the hand-off to Go's scheduler; so are all reads and writes here.
func epollPoll(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, os.NewSyscallError("epoll_pwait", errno)
	}
	return int(n), nil
}

// read fills p with what is there; 0 and no error is nothing yet.
func read(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, nil
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0:
		return 0, errors.New("the server closed the connection")
	}
	return int(n), nil
}

// write sends all of p: a request fits into an empty socket buffer.
func write(fd int, p []byte) error {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return os.NewSyscallError("write", errno)
	}
	if int(n) != len(p) {
		return fmt.Errorf("the kernel took %d of %d bytes", n, len(p))
	}
	return nil
}
