package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// datagramClient keeps a window of datagrams under way on one UDP socket. One
// that is not answered in lossTime is counted as lost and sent anew.
type datagramClient struct {
	fd      int
	id      uint64
	next    uint64 // number of the next datagram
	answers uint64
	slots   []slot // datagram i is in slot i % len(slots)
	in      batch
	out     batch
	joined  bool // what is sent goes through the kernel as one buffer: UDP_SEGMENT
}

// slot is one place of the window.
type slot struct {
	number uint64
	sent   int64
	data   []byte
}

const (
	udpSize   = 64
	udpWindow = 8 // 16 sockets fill half a default receive buffer
	udpMost   = 64
	lossTime  = int64(200e6)
)

// batch is the memory of one recvmmsg or sendmmsg.
type batch struct {
	headers [udpMost]mmsghdr
	vectors [udpMost]unix.Iovec
	data    [udpMost][]byte
}

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// point makes every header point at its own buffer of size bytes.
func (b *batch) point(size int) {
	for i := range b.headers {
		b.data[i] = make([]byte, size)
		b.vectors[i].Base = &b.data[i][0]
		b.vectors[i].SetLen(size)
		b.headers[i].hdr.Iov = &b.vectors[i]
		b.headers[i].hdr.SetIovlen(1)
	}
}

// udpTo returns what opens clients of a UDP echo server.
func udpTo(to netip.AddrPort) opener { return udpWindowOf(udpWindow)(to) }

// udpWindowOf is udpTo with so many datagrams under way, udpMost at most.
func udpWindowOf(window int) func(netip.AddrPort) opener { return udpOf(window, udpSize, false) }

// udpOf is udpWindowOf with so many bytes in each; joined ones leave together.
func udpOf(window, size int, joined bool) func(netip.AddrPort) opener {
	return func(to netip.AddrPort) opener {
		var id uint64
		return func() (int, client, error) {
			fd, err := dial(unix.SOCK_DGRAM, to)
			if err == nil && joined {
				err = os.NewSyscallError("setsockopt UDP_SEGMENT", unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size))
			}
			id++
			c := &datagramClient{fd: fd, id: id, slots: make([]slot, window), joined: joined}
			for i := range c.slots {
				c.slots[i].data = make([]byte, size)
			}
			c.in.point(size + 8)
			c.out.point(size)
			return fd, c, err
		}
	}
}

func (c *datagramClient) answered() uint64 { return c.answers }

func (c *datagramClient) start(l *load) error {
	for i := range c.slots {
		c.fill(l, i, i)
	}
	return c.send(len(c.slots))
}

// fill puts a new datagram into a slot and into the i-th place of out.
func (c *datagramClient) fill(l *load, at, i int) {
	s := &c.slots[at]
	// The number keeps naming its slot also when another was lost.
	s.number = c.next*uint64(len(c.slots)) + uint64(at)
	c.next++
	s.sent = l.now
	pattern(s.data, c.id, s.number)
	copy(c.out.data[i], s.data)
}

func (c *datagramClient) send(n int) error {
	if c.joined && n > 0 {
		return c.sendJoined(n)
	}
	for done := 0; done < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(c.fd),
			uintptr(unsafe.Pointer(&c.out.headers[done])), uintptr(n-done), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EAGAIN {
			return nil // tick finds them lost
		}
		if errno != 0 {
			return os.NewSyscallError("sendmmsg", errno)
		}
		done += int(sent)
	}
	return nil
}

func (c *datagramClient) sendJoined(n int) error {
	all := unix.Msghdr{Iov: &c.out.vectors[0]}
	all.SetIovlen(n)
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&all)), unix.MSG_DONTWAIT)
	if errno == 0 || errno == unix.EAGAIN { // as in send
		return nil
	}
	return os.NewSyscallError("sendmsg", errno)
}

func (c *datagramClient) ready(l *load) error {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(c.fd),
		uintptr(unsafe.Pointer(&c.in.headers[0])), uintptr(len(c.slots)), unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN {
		return nil
	}
	if errno != 0 {
		return os.NewSyscallError("recvmmsg", errno)
	}
	l.now = clock()
	again := 0
	for i := range int(n) {
		p := c.in.data[i][:min(int(c.in.headers[i].n), len(c.in.data[i]))]
		if size := len(c.slots[0].data); len(p) != size {
			return fmt.Errorf("a datagram of %d bytes came back as %d", size, len(p))
		}
		number := binary.LittleEndian.Uint64(p[8:])
		at := int(number % uint64(len(c.slots)))
		s := &c.slots[at]
		if number != s.number {
			continue // given up before
		}
		if !bytes.Equal(p, s.data) {
			return fmt.Errorf("client %d: sent %x, got back %x", c.id, s.data, p)
		}
		l.latency.add(l.now - s.sent)
		c.answers++
		c.fill(l, at, again)
		again++
	}
	return c.send(again)
}

func (c *datagramClient) tick(l *load) error {
	again := 0
	for at := range c.slots {
		if l.now-c.slots[at].sent > lossTime {
			l.lost++
			c.fill(l, at, again)
			again++
		}
	}
	return c.send(again)
}
