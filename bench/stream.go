package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dial connects a non-blocking socket. A connection that is closed later goes
// by reset, so that thousands of them leave nothing in TIME_WAIT.
func dial(kind int, to netip.AddrPort) (int, error) { return dialFrom(kind, netip.Addr{}, to) }

// dialFrom dials from an address of its own; the zero one is the kernel's choice.
// What has one is closed in the orderly way.
func dialFrom(kind int, from netip.Addr, to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if kind == unix.SOCK_STREAM && from.IsValid() {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
			os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()})))
	} else if kind == unix.SOCK_STREAM {
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			// Bounds connect, which waits when the backlog is full.
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10}))
	}
	if err == nil {
		err = os.NewSyscallError("connect", connect(fd, to))
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// connect waits for connect(2). One that has a time limit is not restarted after a
// signal, and Go sends its threads some: asked again, it goes on waiting (connect(2),
// signal(7)).
func connect(fd int, to netip.AddrPort) error {
	for {
		err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// pattern fills p with bytes that differ from client to client and from
// request to request.
func pattern(p []byte, client, request uint64) {
	binary.LittleEndian.PutUint64(p, client)
	binary.LittleEndian.PutUint64(p[8:], request)
	for i := 16; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], (request+uint64(i))*0x9E3779B97F4A7C15)
	}
}

// stream is what echo and HTTP clients share: one request under way, or some that
// were sent at once.
type stream struct {
	fd      int
	deep    int
	sent    int64
	answers uint64
	got     int
	in      []byte
}

func (s *stream) tick(*load) error { return nil }
func (s *stream) answered() uint64 { return s.answers }

// send sends the next request.
func (s *stream) send(l *load, request []byte) error {
	s.got = 0
	s.sent = l.now
	return write(s.fd, request)
}

// count counts an answer, which ended now.
func (s *stream) count(l *load) {
	l.now = clock()
	l.latency.addMany(l.now-s.sent, uint32(s.deep))
	s.answers += uint64(s.deep)
}

// echoClient sends a block and wants the same block back.
type echoClient struct {
	stream
	id   uint64
	out  []byte
	once bool // no second request
}

const echoSize = 64

// echoTo returns what opens clients of an echo server.
func echoTo(to netip.AddrPort) func() (int, client, error) { return echoOf(echoSize)(to) }

// echoOf is echoTo with blocks of another size.
func echoOf(size int) func(netip.AddrPort) opener { return echoDeep(size, 1) }

// echoDeep sends so many blocks at once and waits for all.
func echoDeep(one, deep int) func(netip.AddrPort) opener { return echoFrom(netip.Addr{}, one, deep) }

// echoFrom is echoDeep from an address of its own: see dialFrom.
func echoFrom(from netip.Addr, one, deep int) func(netip.AddrPort) opener {
	size := one * deep
	return func(to netip.AddrPort) opener {
		var id uint64
		return func() (int, client, error) {
			fd, err := dialFrom(unix.SOCK_STREAM, from, to)
			id++
			return fd, &echoClient{
				stream: stream{fd: fd, deep: deep, in: make([]byte, size+1)},
				id:     id,
				out:    make([]byte, size),
			}, err
		}
	}
}

func (c *echoClient) start(l *load) error {
	pattern(c.out, c.id, c.answers)
	return c.send(l, c.out)
}

func (c *echoClient) ready(l *load) error {
	n, err := read(c.fd, c.in[c.got:])
	if err != nil {
		return err
	}
	c.got += n
	if c.got < len(c.out) {
		return nil
	}
	if !bytes.Equal(c.in[:c.got], c.out) {
		return fmt.Errorf("client %d, request %d: sent %x, got back %x", c.id, c.answers, c.out, c.in[:c.got])
	}
	c.count(l)
	if c.once {
		return nil
	}
	return c.start(l)
}

// httpClient sends GET / on a kept connection and wants 200 and httpBody.
type httpClient struct {
	stream
	out  []byte
	size int // of a whole answer, once the first has come
}

const (
	httpBody    = "hello\n"
	httpRequest = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
)

var (
	httpRequestBytes = []byte(httpRequest)
	httpStatusBytes  = []byte("HTTP/1.1 200 ")
	httpTailBytes    = []byte("\r\n\r\n" + httpBody)
)

// httpTo returns what opens clients of an HTTP server.
func httpTo(to netip.AddrPort) func() (int, client, error) { return httpDeep(1)(to) }

// httpDeep sends so many requests at once and waits for all answers.
func httpDeep(deep int) func(netip.AddrPort) opener {
	request := bytes.Repeat(httpRequestBytes, deep)
	return func(to netip.AddrPort) opener {
		return func() (int, client, error) {
			fd, err := dial(unix.SOCK_STREAM, to)
			return fd, &httpClient{stream: stream{fd: fd, deep: deep, in: make([]byte, 2048*deep)}, out: request}, err
		}
	}
}

func (c *httpClient) start(l *load) error { return c.send(l, c.out) }

func (c *httpClient) ready(l *load) error {
	n, err := read(c.fd, c.in[c.got:])
	if err != nil {
		return err
	}
	c.got += n
	if c.size == 0 {
		if c.size, err = answerSize(c.in[:c.got]); err != nil {
			return err
		}
	}
	if c.size == 0 || c.got < c.size*c.deep {
		return nil
	}
	for in := c.in[:c.got]; len(in) > 0; in = in[c.size:] {
		if len(in) < c.size || !bytes.HasPrefix(in, httpStatusBytes) || !bytes.HasSuffix(in[:c.size], httpTailBytes) {
			return fmt.Errorf("not the answer wanted: %q", in)
		}
	}
	c.count(l)
	return c.start(l)
}

// answerSize returns the size of the answer that p begins with, or 0 when its
// head is not complete.
func answerSize(p []byte) (int, error) {
	head := bytes.Index(p, []byte("\r\n\r\n"))
	if head < 0 {
		return 0, nil
	}
	for line := range strings.SplitSeq(string(p[:head]), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Content-Length") {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			return head + 4 + n, err
		}
	}
	return 0, fmt.Errorf("an answer without Content-Length: %q", p)
}
