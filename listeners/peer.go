package listeners

import (
	"os"
	"time"
)

// Write is Peer.Write.
func (c *conn) Write(p []byte) (int, error) {
	n := 0
	if len(p) == 0 {
		return 0, nil
	}
	if c.pending() == 0 {
		var err error
		if n, err = c.send(p); err != nil || n == len(p) {
			return n, err
		}
	}
	q := c.queue()
	if len(q.shared) > 0 {
		return n, nil // p would have to come after it
	}
	if c.is(packets) {
		if len(q.out) > 0 { // two messages must not become one
			return 0, nil
		}
		q.out = append(q.out, p...)
		return len(p), nil
	}
	room := int(c.Tunables().WriteBuffer) - len(q.out)
	more := min(max(room, 0), len(p)-n)
	q.out = append(q.out, p[n:n+more]...)
	return n + more, nil
}

// WriteShared is Peer.WriteShared.
func (c *conn) WriteShared(p []byte) error {
	if c.pending() == 0 {
		n, err := c.send(p)
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
	c.queue().shared = p
	return nil
}

// Now is Peer.Now.
func (c *conn) Now() time.Time { return c.l.set.loop.Now() }

// Tunables is Peer.Tunables.
func (c *conn) Tunables() *Tunables {
	if c.l.isPressed() {
		return c.l.pressed()
	}
	return &c.l.tunables
}

// SetDeadline is Peer.SetDeadline. It only stores: settle and Expired arm.
func (c *conn) SetDeadline(t time.Time) {
	c.deadline = 0
	if !t.IsZero() {
		loop := c.l.set.loop
		c.deadline = max(loop.Clock()+t.Sub(loop.Now()), 1)
	}
}

// send gives p to the kernel and counts what it took; 0 is EAGAIN.
func (c *conn) send(p []byte) (int, error) {
	if d := c.durable(); d != nil && d.skip > 0 {
		return d.pass(c, p), nil
	}
	if room := c.room(writing); room == 0 {
		return 0, nil // as if the kernel took none
	} else if !c.is(packets) {
		p = p[:min(len(p), room)]
	}
	if k := c.link(); k != nil {
		return k.send(p), nil
	}
	n, errno := sysSend(int(c.fd), p)
	switch {
	case errno == 0:
		c.sentBytes(n)
		return n, nil
	case isLater(errno):
		return 0, nil
	default:
		c.l.stats.failed("write", errno)
		return 0, os.NewSyscallError("write", errno)
	}
}

// flush writes what is pending until the kernel takes no more.
func (c *conn) flush() error {
	q := c.queues
	if q == nil {
		return nil
	}
	for _, queue := range []*[]byte{&q.out, &q.shared} {
		for len(*queue) > 0 {
			n, err := c.send(*queue)
			if err != nil || n == 0 {
				return err
			}
			*queue = (*queue)[n:]
		}
		*queue = nil
	}
	c.shed()
	return nil
}
