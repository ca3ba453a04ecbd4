package sockets

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

const (
	defaultRecv  = 64 << 10
	maxDatagrams = 64 // of one call
	controlSize  = 64 // one IP_PKTINFO or IPV6_PKTINFO, with room
)

// A Datagram is what was received at once.
type Datagram struct {
	Payload   []byte
	Remote    listeners.Address
	Local     listeners.Address // that it was sent to
	Truncated bool
}

// Recv is recv(2): at most so many bytes, none at the end of the stream. With
// peek they are there to be received again.
func (t *Table) Recv(ctx context.Context, who Caller, id string, most int, peek bool) ([]byte, error) {
	got, err := t.recv(ctx, who, id, most, peek, false)
	return got.what.Payload, err
}

func (t *Table) recv(ctx context.Context, who Caller, id string, most int, peek, forever bool) (got taken[Datagram], err error) {
	if most == 0 {
		most = defaultRecv
	}
	c := &call{words: "receive", forever: forever}
	c.try = func(s *Socket) (err error) {
		got, err = s.next(min(most, MaxPayload), peek)
		return err
	}
	if !peek {
		c.undo = func(s *Socket) { s.giveBack(got) }
		c.bytes = func() int { return len(got.what.Payload) }
	}
	if err := t.run(ctx, who, id, c); err != nil {
		return taken[Datagram]{}, err
	}
	return got, nil
}

// RecvFrom is recvfrom(2), for up to count datagrams of which at most so many
// bytes are kept each; 0 is one, and all.
func (t *Table) RecvFrom(ctx context.Context, who Caller, id string, count, most int) (all []Datagram, err error) {
	if most = min(most, MaxPayload); most == 0 {
		most = MaxPayload
	}
	var got []taken[Datagram]
	err = t.run(ctx, who, id, &call{
		words: "receive",
		try: func(s *Socket) error {
			room := most
			if s.Network.Class() == listeners.OnUDP {
				room = min(most, defaultRecv) // none is longer
			}
			// None is cut for those before it: there is room for another, or it waits.
			for size := 0; len(got) < min(max(count, 1), maxDatagrams) && size+room <= MaxPayload; {
				one, err := s.next(room, false)
				if err != nil && len(got) == 0 {
					return err
				}
				if err != nil {
					return nil //nolint:nilerr // it is told with the next call, if it is one
				}
				got = append(got, one)
				size += len(one.what.Payload)
			}
			return nil
		},
		undo: func(s *Socket) { s.giveBack(got...) },
		bytes: func() (n int) {
			for _, one := range got {
				n += len(one.what.Payload)
			}
			return n
		},
	})
	for _, one := range got {
		all = append(all, one.what)
	}
	return all, err
}

// next is what comes next: what was given back, or what the kernel has.
func (s *Socket) next(most int, peek bool) (taken[Datagram], error) {
	if len(s.unread) > 0 {
		return s.reread(most, peek), nil
	}
	var control []byte
	if s.Network.Class() == listeners.OnUDP { // of a Unix socket, room would let others put descriptors into our table
		control = make([]byte, controlSize)
	}
	flags := unix.MSG_CMSG_CLOEXEC
	if peek {
		flags |= unix.MSG_PEEK
	}
	buf := s.t.buffer(most)
	n, controls, got, from, err := unix.Recvmsg(s.FD, buf, control, flags)
	if err != nil {
		return taken[Datagram]{}, os.NewSyscallError("recvmsg", err)
	}
	at := s.place
	if !peek {
		s.place += uint64(max(n, 1))
	}
	if s.conn != nil && !peek {
		s.conn.Received(n)
	}
	d := Datagram{Payload: slices.Clone(buf[:n]), Truncated: got&unix.MSG_TRUNC != 0}
	if s.Network.Datagram() {
		d.Remote, d.Local = listeners.AddressOf(s.Network, from), s.Local()
		if ip, ok := netip.AddrFromSlice(sentTo(control[:controls])); ok {
			d.Local.IP = netip.AddrPortFrom(ip.Unmap(), d.Local.IP.Port())
		}
	}
	return taken[Datagram]{at, d}, nil
}

// reread returns what was given back. Of a datagram, what there is no room for
// is lost, as the kernel does it.
func (s *Socket) reread(most int, peek bool) taken[Datagram] {
	first := &s.unread[0]
	got := *first
	if len(got.what.Payload) > most {
		got.what.Payload = got.what.Payload[:most]
	}
	rest := first.what.Payload[len(got.what.Payload):]
	stream := s.Network.SocketType() == unix.SOCK_STREAM
	got.what.Truncated = got.what.Truncated || !stream && len(rest) > 0
	switch {
	case peek:
	case stream && len(rest) > 0:
		first.what.Payload = rest
		first.place += uint64(len(got.what.Payload)) // both may be given back, in whatever order
	default:
		s.unread.drop()
	}
	return got
}

// giveBack is for bytes whose client is gone.
func (s *Socket) giveBack(all ...taken[Datagram]) {
	if s.FD < 0 {
		return
	}
	for _, one := range all {
		if len(one.what.Payload) > 0 || s.Network.SocketType() != unix.SOCK_STREAM {
			s.unread.put(one)
		}
	}
	s.revive()
}

// sentTo is the address that a datagram was sent to, from its control message.
func sentTo(control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return nil
	}
	switch m := messages[0]; {
	case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
		return (*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0])).Addr[:]
	case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
		return (*unix.Inet6Pktinfo)(unsafe.Pointer(&m.Data[0])).Addr[:]
	}
	return nil
}
