package listeners

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A durable connection survives the end of this process: the keeper has a copy of
// its descriptor, and what the next process needs to go on is in a slot. What is
// read lands in the slot, not in memory of this process; the rest is the kernel's
// to tell (see positionsOf). Loop only.
//
// A handler is one step behind in the slot: the moment there has what it had
// consumed, and written, and knew, when nothing waited to be sent any more. The
// next process does again what came after it, with the same bytes, and leaves out
// what was sent of that already. So there is no instruction at which a byte would
// be lost, or come twice.
//
// A relay has no moments: what was read of one side and not written to the other
// is in the buffer between, and how much that is the kernel knows.
type durable struct {
	slot
	set     *durables
	moment         // as it is in the slot
	skip    uint64 // bytes that the handler writes again, and the peer has
	got     uint64 // of the upstream of a relay
	joined  bool   // the keeper has the upstream too
	touched [2]int // bytes of the buffers that were in use
}

// durability are the words of the option.
var durability = []string{"none", "connections"}

var errReplay = errors.New("it cannot go on: its handler does not write again what was sent before the daemon was killed")

// durable is what makes the connection so; nil: it is not.
func (c *conn) durable() *durable {
	if c.rare == nil {
		return nil
	}
	return c.rare.durable
}

// endure makes the connection durable if its listener wants that. rest was read
// and is for the handler, which has not begun.
func (c *conn) endure(rest []byte) {
	if c.l.tunables.Durability == 0 || c.family == unix.AF_UNIX || c.link() != nil || c.l.set.durables == nil || len(rest) > slotBuffer {
		return
	}
	d := c.l.set.durables.take()
	if d == nil {
		return
	}
	// Urgent data stays in the stream (RFC 6093), or the kernel would not count as we do.
	err := unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	var p positions
	if err == nil {
		p, err = positionsOf(int(c.fd))
	}
	if err != nil {
		d.free()
		c.l.set.log.Warn("a connection is not durable", "listener", c.l.Name, "error", err)
		return
	}
	l := lasting{
		cookie: c.cookie(), listener: c.l.Name, kind: c.l.spec.Handler.Kind(), config: c.l.config(), remote: c.remote,
		opened: c.l.set.loop.Time(c.opened).UnixNano(), v6: c.family == unix.AF_INET6,
		consumed: p.consumed - c.received, written: p.written - c.sent,
	}
	if c.rare != nil {
		l.proxied = c.rare.proxied
	}
	d.moment = moment{used: c.received - uint64(len(rest)), sent: c.sent}
	copy(d.buffer(0), rest)
	d.touch(0, len(rest))
	d.putRecord(recordFixed, &l)
	d.setWord(wordUpstream, 0)
	d.put()
	d.setWord(wordLive, 1)
	if c.rarely().durable = d; !d.set.store(clientName(d.number()), int(c.fd)) {
		c.forsake()
	}
}

// clientName is what the keeper has a connection as, and upstreamName the one to
// its upstream. They are short: see fdstore.
func clientName(n int) string   { return "@c" + strconv.FormatInt(int64(n), 36) }
func upstreamName(n int) string { return "@u" + strconv.FormatInt(int64(n), 36) }

// put writes the moment, beside the one that holds, and has it hold.
func (d *durable) put() {
	next := 1 - d.word(wordMoment)&1
	d.putRecord(recordMoments+int(next)*recordSize, &d.moment)
	d.setWord(wordMoment, next)
}

// room is where the next read goes.
func (d *durable) room(c *conn) []byte {
	end := int(d.offset) + int(c.received-d.used)
	b := d.buffer(int(d.half))
	return b[end:min(len(b), max(int(d.offset)+int(c.l.tunables.ReadBuffer), end+minRead))]
}

// unused is what was read and not consumed.
func (d *durable) unused(c *conn) []byte {
	end := int(d.offset) + int(c.received-d.used)
	d.touch(int(d.half), end)
	return d.buffer(int(d.half))[d.offset:end]
}

func (d *durable) touch(buffer, end int) { d.touched[buffer] = max(d.touched[buffer], end) }

// commit notes that the handler has consumed all but rest, and that what it wrote
// is sent. It reports whether the connection goes on.
func (d *durable) commit(c *conn, rest int) bool {
	if c.pending() > 0 || c.isBeginning() || d.skip > 0 && c.Pending() { // or it does again for longer than a turn
		return true
	}
	if d.skip > 0 {
		c.l.set.log.Warn("a connection is reset", "listener", c.l.Name, "remote", c.source(), "error", errReplay)
		c.reset(errReplay)
		return false
	}
	used := c.received - uint64(rest)
	if used == d.used && c.sent == d.sent && d.opened && d.ended == c.is(done) && !c.is(told) {
		return true
	}
	d.offset += uint32(used - d.used)
	d.used, d.sent, d.opened, d.ended = used, c.sent, true, c.is(done)
	d.reads, d.writes = c.reads, c.writes
	if h, ok := c.handler.(*httpConn); ok {
		d.state = h.encode(d.state[:0])
	}
	if rest == 0 || d.ended {
		d.offset = 0
	}
	d.put()
	if end := int(d.offset) + rest; d.offset > 0 && slotBuffer-end < slotBuffer/4 { // it goes on at the beginning of the other
		other := 1 - d.half
		copy(d.buffer(int(other)), d.buffer(int(d.half))[d.offset:end])
		d.half, d.offset = other, 0
		d.touch(int(other), rest)
		d.put()
	}
	return true
}

// pass is what becomes of p if the peer has it already: it counts as sent.
func (d *durable) pass(c *conn, p []byte) int {
	n := min(uint64(len(p)), d.skip)
	d.skip -= n
	c.sent += n
	return int(n)
}

// die comes first when a connection is closed: what is not live any more is closed
// by the next process too.
func (d *durable) die() { d.setWord(wordLive, 0) }

// release ends the connection for its peer, which a close of our own descriptor
// does not while the keeper has another, and has the keeper close that.
func (d *durable) release(fd int) {
	hangUp(fd)
	d.set.remove(clientName(d.number()))
	d.free()
}

// hangUp does what the last close would do.
func hangUp(fd int) {
	if sec, on, err := sockLinger(fd); err == nil && on && sec == 0 {
		_ = disconnect(fd) // RST; it is over if there is nothing to disconnect
		return
	}
	_ = unix.Shutdown(fd, unix.SHUT_RDWR) // ENOTCONN: it is over
}

func (d *durable) free() {
	d.setWord(wordLive, 0)
	d.forget(d.touched)
	d.set.put(d.slot)
}

// forsake makes the connection one that is lost with this process.
func (c *conn) forsake() {
	d := c.durable()
	if d == nil {
		return
	}
	d.die()
	d.set.remove(clientName(d.number()))
	if r := c.relay(); r != nil {
		if d.joined {
			d.set.remove(upstreamName(d.number()))
		}
		r.there.own()
		r.back.own()
	}
	d.free()
	c.rare.durable = nil
}

// own takes what is in a slot into memory of its own.
func (f *flow) own() {
	if len(f.rest) > 0 {
		f.rest = append([]byte(nil), f.rest...)
	}
}

// A config tells one configuration of a handler from another.
type config struct {
	of   HandlerSpec
	hash uint64
}

// config is that of the listener's handler. It may be long: it is looked at once.
func (l *Listener) config() uint64 {
	if l.configured.of != l.spec.Handler {
		b, err := marshalHandler(l.spec.Handler)
		if err != nil {
			return 0
		}
		l.configured = config{l.spec.Handler, uint64(checksum(b))<<32 | uint64(uint32(len(b)))}
	}
	return l.configured.hash
}

// refusesDurable says why connections of the listener can never be durable; empty:
// some can.
func (s Spec) refusesDurable() string {
	switch s.Handler.(type) {
	case *Forward, *HTTP, *Reply, Echo, *Echo, Discard, *Discard:
	default:
		return fmt.Sprintf("is not for the %s handler: echo, discard, reply, http and forward have it", s.Handler.Kind())
	}
	switch {
	case s.TLS != nil:
		return "is not for TLS, whose keys end with the daemon"
	case s.concurrency() != OnLoop:
		return fmt.Sprintf("is for connections that the loop serves, and a %v ends with the daemon", s.concurrency())
	}
	return ""
}

// since is when a connection was opened, on the loop's clock.
func (s *Set) since(nanoseconds int64) time.Duration {
	age := max(0, s.loop.Now().Sub(time.Unix(0, nanoseconds)))
	return s.loop.Clock() - age
}
