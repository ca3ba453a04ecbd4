package listeners

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// taken is a connected upstream, for a goroutine.
type taken struct {
	fd     int32
	header []byte // to be sent first
}

// serve relays by blocking calls: forward in a thread. The loop chooses the
// upstream and connects to it, as for a relay of its own.
func (f *forwarder) serve(client net.Conn, t *thread) error {
	conn, header, err := f.dial(t)
	if err != nil {
		return err
	}
	up := &upstreamConn{Conn: conn}
	defer func() {
		_ = up.Close()
		_ = t.v.loop.Post(t.relay.handedBack) // ended: nobody counts any more
	}()
	// It waits, so that an RST of the client is told before the upstream is closed.
	// When the loop has ended, the client is closed.
	_ = t.v.loop.Do(context.Background(), func() error { t.relaysTo(conn); return nil })
	if len(header) > 0 {
		_, _ = up.Write(header) // if it is gone, the read says why
	}
	there := make(chan error, 1)
	go func() {
		err := caught(func() error { return pump(up, client) })
		if err != nil {
			up.stop()
		}
		there <- err
		up.unwatch()
	}()
	err = pump(client, up)
	switch {
	case err == nil:
		if up.gone(there) {
			_ = t.v.Close() // nobody takes what the client says
		}
	case errors.Is(err, os.ErrDeadlineExceeded): // stopped
		err = nil
	case !errors.Is(err, net.ErrClosed):
		_ = t.v.loop.Post(func() { t.upstreamFailed(err) })
	}
	return errors.Join(err, <-there)
}

// dial has the loop connect to an upstream, and waits for it.
func (f *forwarder) dial(t *thread) (net.Conn, []byte, error) {
	taker := make(chan taken, 1)
	if t.v.loop.Post(func() { t.dial(f, taker) }) != nil {
		return nil, nil, net.ErrClosed
	}
	var up taken
	select {
	case up = <-taker:
	case <-t.v.over:
		select {
		case up = <-taker: // the goroutine's, though it is over
		default:
			return nil, nil, t.v.why()
		}
	}
	file := os.NewFile(uintptr(up.fd), "upstream")
	conn, err := net.FileConn(file)
	_ = file.Close() // conn has another
	if err != nil {
		_ = t.v.loop.Post(t.relay.handedBack)
	}
	return conn, up.header, err
}

// dial begins to connect. On the loop.
func (t *thread) dial(f *forwarder, taker chan taken) {
	if t.gone {
		return
	}
	if now, ok := inner(t.c.l.handler).(*forwarder); ok {
		f = now // it was changed meanwhile
	}
	t.relay = &relay{f: f, c: t.c, fd: -1, taker: taker}
	t.relay.begin()
}

// handOver gives the connected upstream to the goroutine that waits for it.
func (r *relay) handOver(header []byte) {
	r.upstream = r.peer()
	_ = r.c.l.set.loop.Remove(int(r.fd)) // it is there
	r.taker <- taken{r.fd, header}
	r.fd = -1
}

// handedBack is that the goroutine has closed it.
func (r *relay) handedBack() {
	r.up.active--
	r.f.l.set.closedOut(r.out, r.hop)
	r.f.l.set.released()
}

// upstreamFailed carries an RST over.
func (t *thread) upstreamFailed(err error) {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		t.relay.up.lastError = errnoText(errno)
	}
	if !t.gone {
		t.c.reset(errUpstreamReset)
	}
}

// relaysTo is that the goroutine uses the upstream. On the loop.
func (t *thread) relaysTo(conn net.Conn) {
	r := t.relay
	r.conn = conn
	switch {
	case t.gone:
		r.stop(r.failed)
	case t.left:
		r.clientLeft()
	}
}

// clientLeft is that the client is gone, and has said all: its upstream gets
// that still.
func (r *relay) clientLeft() {
	if r.conn != nil {
		_ = r.conn.SetReadDeadline(past)
	}
}

// stop has the goroutine let the upstream go, by RST if so was the client.
func (r *relay) stop(reset bool) {
	if c, ok := r.conn.(*net.TCPConn); ok && reset {
		_ = c.SetLinger(0)
	}
	_ = r.conn.SetDeadline(past)
}

// past is a deadline that ends what waits.
var past = time.Unix(1, 0)

// pump carries one direction of a relay, and that it has ended. It returns what
// a read failed with. Where a write fails it ends: the other side takes no more,
// and its own direction says how that ends.
func pump(to, from net.Conn) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return nil //nolint:nilerr // see above
			}
		}
		if err == io.EOF { //nolint:errorlint // io.Reader returns it bare
			_ = to.(interface{ CloseWrite() error }).CloseWrite() // it has closed already
			return nil
		}
		if err != nil {
			return err
		}
	}
}
