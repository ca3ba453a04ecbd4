package mux

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type epoll struct {
	fd  int
	buf [256]unix.EpollEvent // more are reported by the next Wait

	park parking
	spin spinning
}

func newEpoll() (Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &epoll{fd: fd}
	if err := p.park.open(fd, p.look); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return p, nil
}

func (p *epoll) Name() string { return "epoll" }
func (p *epoll) Close() error { return p.park.close() }

func (p *epoll) ctl(op int, k Key, want Events) error {
	// Pad is the half of the kernel's data word that Fd leaves free.
	ev := unix.EpollEvent{Fd: int32(k.FD), Pad: int32(k.Gen)}
	if want&Readable != 0 {
		ev.Events |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if want&Writable != 0 {
		ev.Events |= unix.EPOLLOUT
	}
	if want&Urgent != 0 {
		ev.Events |= unix.EPOLLPRI
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, k.FD, &ev))
}

func (p *epoll) Add(k Key, want Events) error    { return p.ctl(unix.EPOLL_CTL_ADD, k, want) }
func (p *epoll) Modify(k Key, want Events) error { return p.ctl(unix.EPOLL_CTL_MOD, k, want) }
func (p *epoll) Remove(fd int) error             { return p.ctl(unix.EPOLL_CTL_DEL, Key{FD: fd}, 0) }

func (p *epoll) Wait(dst []Ready, timeout time.Duration) ([]Ready, error) {
	n, err := p.wait(timeout)
	if errors.Is(err, unix.EINTR) {
		return dst, nil
	}
	if err != nil {
		return dst, os.NewSyscallError("epoll_wait", err)
	}
	for i := range p.buf[:n] {
		ev := &p.buf[i]
		var got Events
		if ev.Events&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			got |= Readable
		}
		if ev.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			got |= Writable
		}
		dst = append(dst, Ready{Key{int(ev.Fd), uint32(ev.Pad)}, got})
	}
	return dst, nil
}

// wait goes through Go's scheduler only when it may block: a raw call that
// blocks would hold the processor that garbage collection and timers need, and
// a scheduled one that does not costs a fifth of an echo.
func (p *epoll) wait(timeout time.Duration) (int, error) {
	if timeout == 0 {
		return p.look()
	}
	if p.spin.due() {
		n, err := p.spinFor(spinTime)
		p.spin.spun(n > 0)
		if n > 0 || err != nil {
			return n, err
		}
	}
	if p.park.quiet() {
		return p.park.wait(timeout)
	}
	n, err := unix.EpollWait(p.fd, p.buf[:], millis(p.park.atMost(timeout)))
	p.park.waited(n)
	return n, err
}

// spinFor looks until something is ready or the time is over.
func (p *epoll) spinFor(most time.Duration) (n int, err error) {
	for began := time.Now(); n == 0 && err == nil && time.Since(began) < most; {
		n, err = p.look()
	}
	return n, err
}

// look asks what is ready now.
func (p *epoll) look() (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.buf[0])), uintptr(len(p.buf)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
