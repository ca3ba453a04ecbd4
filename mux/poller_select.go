package mux

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

type selectSet struct {
	r, w, x unix.FdSet
	gens    [unix.FD_SETSIZE]uint32
	in      [unix.FD_SETSIZE]bool
	maxFD   int
}

func newSelect() (Poller, error) { return &selectSet{maxFD: -1}, nil }

func (p *selectSet) Name() string { return "select" }
func (p *selectSet) Close() error { return nil }

func (p *selectSet) Add(k Key, want Events) error {
	if k.FD >= unix.FD_SETSIZE {
		return ErrFDRange // FD_SET would write past the set
	}
	if p.in[k.FD] {
		return os.NewSyscallError("select add", unix.EEXIST)
	}
	p.in[k.FD] = true
	p.gens[k.FD] = k.Gen
	p.maxFD = max(p.maxFD, k.FD)
	return p.Modify(k, want)
}

func (p *selectSet) Modify(k Key, want Events) error {
	if k.FD >= unix.FD_SETSIZE || !p.in[k.FD] {
		return os.NewSyscallError("select modify", unix.ENOENT)
	}
	p.r.Clear(k.FD)
	p.w.Clear(k.FD)
	p.x.Clear(k.FD)
	if want&Readable != 0 {
		p.r.Set(k.FD)
	}
	if want&Writable != 0 {
		p.w.Set(k.FD)
	}
	if want&Urgent != 0 {
		p.x.Set(k.FD)
	}
	return nil
}

func (p *selectSet) Remove(fd int) error {
	if fd >= unix.FD_SETSIZE || !p.in[fd] {
		return os.NewSyscallError("select remove", unix.ENOENT)
	}
	p.in[fd] = false
	p.r.Clear(fd)
	p.w.Clear(fd)
	p.x.Clear(fd)
	for p.maxFD >= 0 && !p.in[p.maxFD] {
		p.maxFD--
	}
	return nil
}

// Wait looks for out-of-band data only in the set of exceptions: select(2)
// reports errors and hang-ups as readable and, where writing fails, as writable.
func (p *selectSet) Wait(dst []Ready, timeout time.Duration) ([]Ready, error) {
	r, w, x := p.r, p.w, p.x // select(2) overwrites its sets
	var tv *unix.Timeval
	if timeout >= 0 {
		t := unix.NsecToTimeval(int64(millis(timeout)) * int64(time.Millisecond))
		tv = &t
	}
	n, err := unix.Select(p.maxFD+1, &r, &w, &x, tv)
	if err == unix.EINTR {
		return dst, nil
	}
	if err != nil {
		return dst, os.NewSyscallError("select", err)
	}
	for fd := 0; n > 0 && fd <= p.maxFD; fd++ {
		var got Events
		if r.IsSet(fd) {
			got |= Readable
			n--
		}
		if w.IsSet(fd) {
			got |= Writable
			n--
		}
		if x.IsSet(fd) {
			got |= Readable
			n--
		}
		if got != 0 {
			dst = append(dst, Ready{Key{fd, p.gens[fd]}, got})
		}
	}
	return dst, nil
}
