package listeners

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// driveBuffer is what a driver reads at first; it grows with what comes.
const driveBuffer = 4 << 10

// A driver runs a Handler, which was made for the loop, in a goroutine, by
// blocking calls: it is the Peer. Nothing is ever pending, since its writes
// wait.
type driver struct {
	kind     HandlerSpec
	packets  bool
	tunables *atomic.Pointer[Tunables] // the listener's

	v    *view // nil: it has a process of its own
	conn net.Conn
	h    Handler
	mu   sync.Mutex // of calls to h: a Feeder has a goroutine of its own
	by   time.Time  // when it is to be told Expired; zero: never
}

// Write is Peer.Write.
func (d *driver) Write(p []byte) (int, error) { return d.conn.Write(p) }

// WriteShared is Peer.WriteShared.
func (d *driver) WriteShared(p []byte) error {
	_, err := d.conn.Write(p)
	return err
}

// Pending is Peer.Pending.
func (*driver) Pending() bool { return false }

// Now is Peer.Now.
func (*driver) Now() time.Time { return time.Now() }

// SetDeadline is Peer.SetDeadline.
func (d *driver) SetDeadline(t time.Time) { d.by = t }

// Tunables is Peer.Tunables.
func (d *driver) Tunables() *Tunables { return d.tunables.Load() }

// serve drives in a thread.
func (d *driver) serve(conn net.Conn, t *thread) error {
	d.v = t.v
	return d.drive(conn)
}

// drive is the life of the connection.
func (d *driver) drive(conn net.Conn) error {
	d.conn, d.h = conn, d.kind.New()
	if o, ok := d.h.(Opener); ok {
		h, err := o.Open(d)
		if err != nil {
			return err
		}
		d.h = h
	}
	if _, ok := d.h.(Drainer); ok {
		d.v.canDrain()
	}
	f, ok := d.h.(Feeder)
	if !ok {
		return d.read()
	}
	fed := make(chan error, 1)
	go func() {
		err := caught(func() error { return d.feed(f) })
		_ = d.conn.Close() // which ends the reading
		fed <- err
	}()
	err := d.read()
	_ = d.conn.Close()
	if fedErr := <-fed; !errors.Is(fedErr, net.ErrClosed) {
		return fedErr
	}
	return err
}

// feed sends for as long as the peer takes it.
func (d *driver) feed(f Feeder) error {
	for {
		d.mu.Lock()
		err := f.Feed(d)
		d.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// read offers what comes to the handler, as the loop does.
func (d *driver) read() error {
	buf := make([]byte, driveBuffer)
	if d.packets {
		buf = make([]byte, d.Tunables().ReadBuffer)
	}
	kept, set := 0, time.Time{}
	for {
		if d.by != set {
			if err := d.conn.SetReadDeadline(d.by); err != nil {
				return err
			}
			set = d.by
		}
		n, err := d.conn.Read(buf[kept:])
		full := n == len(buf)-kept
		if n > 0 {
			var herr error
			if kept, herr = d.offer(buf[:kept+n]); herr != nil {
				return herr
			}
			d.v.keeps(kept)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = d.timeout(kept)
		}
		if err != nil {
			return err
		}
		if limit := int(d.Tunables().ReadBuffer); kept >= limit {
			return errStuck
		} else if full && len(buf) < limit {
			buf = append(make([]byte, 0, min(2*len(buf), limit)), buf[:kept]...)
			buf = buf[:cap(buf)]
		}
	}
}

// offer has the handler consume what it can, and keeps the rest in front.
func (d *driver) offer(p []byte) (kept int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rest := p
	for len(rest) > 0 && err == nil {
		var n int
		if n, err = d.h.Handle(d, rest); n == 0 {
			break
		}
		rest = rest[n:]
	}
	return copy(p, rest), err
}

// timeout is the end of the time that the handler asked for, or that it shall
// come to rest.
func (d *driver) timeout(kept int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.by.IsZero() && !time.Now().Before(d.by) {
		d.by = time.Time{}
		if e, ok := d.h.(Expirer); ok {
			err := e.Expired(d)
			if errors.Is(err, errDone) {
				d.v.expired()
			}
			return err
		}
		return nil
	}
	h, ok := d.h.(Drainer)
	if !ok || !h.Drain(d) || kept > 0 {
		return nil
	}
	r, ok := h.(Rester)
	if !ok {
		return io.EOF
	}
	if grace := d.v.graceLeft(); grace > 0 {
		r.Rest(d, grace)
	}
	return nil
}
