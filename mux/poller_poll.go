package mux

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pollSet keeps fds and gens in step; at maps a descriptor to its index.
type pollSet struct {
	fds  []unix.PollFd
	gens []uint32
	at   map[int]int
}

func newPoll() (Poller, error) { return &pollSet{at: map[int]int{}}, nil }

func (p *pollSet) Name() string { return "poll" }
func (p *pollSet) Close() error { return nil }

func pollMask(want Events) (m int16) {
	if want&Readable != 0 {
		m |= unix.POLLIN | unix.POLLRDHUP
	}
	if want&Writable != 0 {
		m |= unix.POLLOUT
	}
	if want&Urgent != 0 {
		m |= unix.POLLPRI
	}
	return m
}

func (p *pollSet) Add(k Key, want Events) error {
	if _, dup := p.at[k.FD]; dup {
		return os.NewSyscallError("poll add", unix.EEXIST)
	}
	p.at[k.FD] = len(p.fds)
	p.fds = append(p.fds, unix.PollFd{Fd: int32(k.FD), Events: pollMask(want)})
	p.gens = append(p.gens, k.Gen)
	return nil
}

func (p *pollSet) Modify(k Key, want Events) error {
	i, ok := p.at[k.FD]
	if !ok {
		return os.NewSyscallError("poll modify", unix.ENOENT)
	}
	p.fds[i].Events = pollMask(want)
	return nil
}

func (p *pollSet) Remove(fd int) error {
	i, ok := p.at[fd]
	if !ok {
		return os.NewSyscallError("poll remove", unix.ENOENT)
	}
	last := len(p.fds) - 1
	p.fds[i], p.gens[i] = p.fds[last], p.gens[last]
	p.at[int(p.fds[i].Fd)] = i
	p.fds, p.gens = p.fds[:last], p.gens[:last]
	delete(p.at, fd)
	return nil
}

func (p *pollSet) Wait(dst []Ready, timeout time.Duration) ([]Ready, error) {
	n, err := unix.Poll(p.fds, millis(timeout))
	if err == unix.EINTR {
		return dst, nil
	}
	if err != nil {
		return dst, os.NewSyscallError("poll", err)
	}
	for i := 0; n > 0 && i < len(p.fds); i++ {
		re := p.fds[i].Revents
		if re == 0 {
			continue
		}
		n--
		var got Events
		if re&(unix.POLLIN|unix.POLLPRI|unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			got |= Readable
		}
		if re&(unix.POLLOUT|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			got |= Writable
		}
		dst = append(dst, Ready{Key{int(p.fds[i].Fd), p.gens[i]}, got})
	}
	return dst, nil
}
