package sockets

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// A Spec says what kind of socket to make.
type Spec struct {
	Network   listeners.Network // tcp, udp, unix, unixgram or unixpacket
	IPVersion int               // 4, 6, or 0: both
	Options   map[string]listeners.Value
	Idle      time.Duration // 0: DefaultIdle
}

// An option is one of Spec.Options, checked.
type option struct {
	row   *listeners.Option
	value listeners.Value
}

// Create is socket(2).
func (t *Table) Create(ctx context.Context, who Caller, spec Spec) (st Status, err error) {
	options, err := spec.check()
	if err != nil {
		return st, err
	}
	err = t.on(ctx, func() error {
		s, err := t.create(who, spec, options)
		if err == nil {
			st = s.status(true)
		}
		return err
	})
	return st, err
}

func (spec *Spec) check() (options []option, err error) {
	switch {
	case spec.Network.SocketType() == 0:
		return nil, invalid("network", "is not one of tcp, udp, unix, unixgram, unixpacket", unix.EPROTONOSUPPORT)
	case spec.IPVersion != 0 && spec.IPVersion != 4 && spec.IPVersion != 6:
		return nil, invalid("ip_version", "is not 4, 6 or 0", unix.EAFNOSUPPORT)
	case spec.Idle < 0:
		return nil, invalid("idle_timeout", "is negative", unix.EINVAL)
	case spec.Idle == 0:
		spec.Idle = DefaultIdle
	}
	return parseOptions(spec.Options, spec.Network)
}

func (t *Table) create(who Caller, spec Spec, options []option) (*Socket, error) {
	if err := t.room(who); err != nil {
		return nil, err
	}
	d, err := makeSocket(spec)
	for _, o := range options {
		if err == nil {
			err = d.Set(o.row, o.value)
		}
	}
	if err != nil {
		if d.FD >= 0 {
			d.CloseNow()
		}
		t.set.Release()
		return nil, err
	}
	return t.adopt(who, d, spec.Idle)
}

// makeSocket is socket(2). With ip_version 0 it is an IPv6 socket that serves
// IPv4 too; a kernel without IPv6 makes one for IPv4.
func makeSocket(spec Spec) (listeners.Descriptor, error) {
	family := unix.AF_UNIX
	switch ip := spec.Network.Class()&listeners.OnIP != 0; {
	case ip && spec.IPVersion == 4:
		family = unix.AF_INET
	case ip:
		family = unix.AF_INET6
	}
	kind := spec.Network.SocketType() | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	fd, err := unix.Socket(family, kind, 0)
	if err == unix.EAFNOSUPPORT && family == unix.AF_INET6 && spec.IPVersion == 0 {
		family = unix.AF_INET
		fd, err = unix.Socket(family, kind, 0)
	}
	d := listeners.Descriptor{FD: fd, Family: family, Network: spec.Network, Made: time.Now()}
	if err != nil {
		d.FD = -1
		return d, refused("a new socket", "make it", os.NewSyscallError("socket", err))
	}
	return d, prepare(d, spec)
}

// prepare sets what socket(2) has no argument for: which IP versions, and that
// datagrams tell where they were sent to.
func prepare(d listeners.Descriptor, spec Spec) error {
	set := func(level, number, value int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(d.FD, level, number, value))
	}
	var err error
	if d.Family == unix.AF_INET6 {
		err = set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, min(spec.IPVersion, 1))
	}
	if err == nil && spec.Network.Class() == listeners.OnUDP {
		if d.Family == unix.AF_INET6 {
			err = set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			err = set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	}
	return err
}
