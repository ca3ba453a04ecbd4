package main

import (
	"bytes"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// churnClient connects, sends a block, wants it back, closes, and begins again.
// What counts is one such round, connect and close included.
type churnClient struct {
	echoClient
	to netip.AddrPort
}

// churnSources is how many addresses of this machine connections come from, in
// turn: those that were closed keep their ports for a minute.
const churnSources = 100

// churnTo returns what opens such clients.
func churnTo(to netip.AddrPort) opener {
	var id uint64
	return func() (int, client, error) {
		id++
		c := &churnClient{to: to, echoClient: echoClient{
			stream: stream{deep: 1, in: make([]byte, echoSize+1)}, id: id, out: make([]byte, echoSize),
		}}
		err := c.dial()
		return c.fd, c, err
	}
}

func (c *churnClient) dial() (err error) {
	from := netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + (c.id+c.answers)%churnSources)})
	c.fd, err = dialFrom(unix.SOCK_STREAM, from, c.to)
	return err
}

func (c *churnClient) ready(l *load) error {
	n, err := read(c.fd, c.in[c.got:])
	if err != nil {
		return err
	}
	if c.got += n; c.got < len(c.out) {
		return nil
	}
	if !bytes.Equal(c.in[:c.got], c.out) {
		return fmt.Errorf("client %d, connection %d: sent %x, got back %x", c.id, c.answers, c.out, c.in[:c.got])
	}
	l.drop(c.fd)
	c.count(l)
	l.now = clock()
	begin := l.now
	if err := c.dial(); err != nil {
		return fmt.Errorf("client %d, connection %d: %w", c.id, c.answers, err)
	}
	if err := l.add(c.fd, c); err != nil {
		return err
	}
	if err := c.start(l); err != nil {
		return err
	}
	c.sent = begin
	return nil
}
