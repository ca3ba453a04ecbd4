package main

import (
	"errors"
	"io"
	"net"
	"net/netip"
)

// forwardNet forwards connections and datagrams to a backend as a Go program
// commonly does: two io.Copy for each connection, which splice, and a socket and
// a goroutine for each sender of datagrams. It returns where.
func forwardNet(stream, datagram string, failed chan<- error) (addrs []any, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	to, err := net.ResolveUDPAddr("udp", datagram)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	go func() { failed <- acceptForward(l, stream) }()
	go func() { failed <- relayDatagrams(c, to) }()
	return []any{l.Addr(), c.LocalAddr()}, nil
}

func acceptForward(l net.Listener, to string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go forwardAll(c, to)
	}
}

func forwardAll(c net.Conn, to string) {
	defer func() { _ = c.Close() }()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	go copyOneWay(up, c)
	copyOneWay(c, up)
}

// copyOneWay copies until one side ends, and then ends both.
func copyOneWay(to, from net.Conn) {
	_, _ = io.Copy(to, from) // a reset is the end too
	_ = to.Close()
	_ = from.Close()
}

func relayDatagrams(c *net.UDPConn, to *net.UDPAddr) error {
	sessions := map[netip.AddrPort]*net.UDPConn{}
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue
		}
		up := sessions[from]
		if up == nil {
			if up, err = net.DialUDP("udp", nil, to); err != nil {
				return err
			}
			sessions[from] = up
			go relayAnswers(c, up, from)
		}
		_, _ = up.Write(buf[:n]) // what is lost is sent anew
	}
}

func relayAnswers(c, up *net.UDPConn, to netip.AddrPort) {
	buf := make([]byte, 65536)
	for {
		n, err := up.Read(buf)
		if err == nil {
			_, err = c.WriteToUDPAddrPort(buf[:n], to)
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}
