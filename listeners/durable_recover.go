package listeners

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

// recoverPerTurn bounds how many connections one turn of the loop goes on with.
const recoverPerTurn = 64

var (
	errNotThere = errors.New("the keeper does not have its descriptor: the daemon was killed as it was accepted")
	errGone     = errors.New("its peer has reset it")
)

// Recover goes on with the connections of a process that was killed, some in each
// turn, now that their listeners are there. What cannot go on is reset.
func (s *Set) Recover(all map[string]*Listener) {
	s.endStrays()
	k := s.durables
	if k == nil {
		return
	}
	r := &recovery{set: s, listeners: all, clients: map[int][]int{}, upstreams: map[int][]int{}, began: time.Now()}
	for _, c := range k.kept.takeConns(func(returnedConn) bool { return true }) {
		if c.kind == 'c' {
			r.clients[c.number] = append(r.clients[c.number], c.fd)
		} else {
			r.upstreams[c.number] = append(r.upstreams[c.number], c.fd)
		}
	}
	r.slots, k.found = k.found, nil // others are connections that were accepted since
	r.some()
}

// A recovery goes on with what came back. Loop only.
type recovery struct {
	set       *Set
	listeners map[string]*Listener
	slots     []slot
	clients   map[int][]int // descriptors by the number of the slot
	upstreams map[int][]int
	began     time.Time
	count     int
	lost      int
}

func (r *recovery) some() {
	n := min(recoverPerTurn, len(r.slots))
	for _, one := range r.slots[:n] {
		d := &durable{slot: one, set: r.set.durables}
		listener, err := r.one(d)
		if err == nil {
			r.count++
			continue
		}
		if errors.Is(err, errGone) {
			r.set.log.Debug("a connection did not wait", "listener", listener, "slot", one.number())
		} else {
			r.lost++
			r.set.log.Warn("a connection is lost", "listener", listener, "slot", one.number(), "error", err)
		}
		r.drop(one.number()) // before another has the slot, and so the names
		d.touched = [2]int{slotBuffer, slotBuffer}
		d.free()
	}
	if r.slots = r.slots[n:]; len(r.slots) > 0 && r.set.loop.Post(r.some) == nil {
		return
	}
	for _, fds := range []map[int][]int{r.clients, r.upstreams} {
		for _, some := range fds { // beside the one that has the name
			for _, fd := range some {
				hangUp(fd)
				sysClose(fd)
			}
		}
	}
	if r.count+r.lost > 0 {
		r.set.log.Info("connections came back", "count", r.count, "lost", r.lost, "took", time.Since(r.began))
	}
}

// drop resets what there is of a slot.
func (r *recovery) drop(number int) {
	for _, fd := range append(r.clients[number], r.upstreams[number]...) {
		_ = disconnect(fd) // it is over if that fails
		sysClose(fd)
	}
	r.set.durables.remove(clientName(number))
	if r.upstreams[number] != nil {
		r.set.durables.remove(upstreamName(number))
	}
	delete(r.clients, number)
	delete(r.upstreams, number)
}

// take is the descriptor of a slot that has the cookie; -1: there is none.
func take(fds map[int][]int, number int, cookie uint64) int {
	i := slices.IndexFunc(fds[number], func(fd int) bool {
		have, err := cookieAt(fd)
		return err == nil && have == cookie
	})
	if i < 0 {
		return -1
	}
	fd := fds[number][i]
	fds[number] = slices.Delete(fds[number], i, i+1)
	return fd
}

// one goes on with the connection of a slot. When it fails, what was taken is in
// its place again.
func (r *recovery) one(d *durable) (listener string, err error) {
	l, err := d.load()
	if err != nil {
		return l.listener, err
	}
	on := r.listeners[l.listener]
	switch {
	case on == nil || on.state == Closed:
		return l.listener, errors.New("its listener is not there any more, or does not run")
	case on.spec.Handler.Kind() != l.kind || on.spec.refusesDurable() != "":
		return l.listener, fmt.Errorf("its handler was %s, and is %s", l.kind, on.spec.Handler.Kind())
	}
	n := d.number()
	fd := take(r.clients, n, l.cookie)
	if fd < 0 {
		return l.listener, errNotThere
	}
	up := -1
	defer func() {
		if err != nil { // it is dropped
			r.clients[n] = append(r.clients[n], fd)
			if up >= 0 {
				r.upstreams[n] = append(r.upstreams[n], up)
			}
		}
	}()
	p, err := positionsOf(fd)
	if err != nil {
		return l.listener, err
	}
	if p.broken {
		return l.listener, errGone
	}
	saved := SavedConn{
		File: 0, Family: l.family(), Cookie: l.cookie, Remote: l.remote, Proxied: l.proxied, Opened: r.set.since(l.opened), Active: r.set.loop.Clock(),
		Received: p.consumed - l.consumed, Sent: p.written - l.written, Reads: d.reads, Writes: d.writes, Lingers: on.lingers, Done: d.ended,
	}
	if d.word(wordUpstream) != 0 {
		if up, err = r.relay(d, &saved); err != nil {
			return l.listener, err
		}
	} else if err = d.rewind(&saved, on.config() == l.config); err != nil {
		return l.listener, err
	}
	resumption := &Resumption{set: r.set, files: []int{fd, up}}
	c, err := resumption.put(on, &saved)
	if err != nil {
		return l.listener, err
	}
	c.rarely().durable = d
	if w := r.set.watcher; w != nil {
		w.ConnOpened(c.status(0))
	}
	// From here on it is an ordinary connection: what goes wrong ends it.
	if saved.Handler.Relay != nil {
		if err := resumption.relay(c, saved.Handler.Relay); err != nil {
			c.reset(err)
		}
	} else {
		d.again(c)
	}
	if c.fd >= 0 {
		c.arm()
	}
	return l.listener, nil
}

// load reads what does not change, and the moment.
func (d *durable) load() (l lasting, err error) {
	data, err := d.record(recordFixed)
	if err == nil {
		err = l.decode(data)
	}
	if err == nil {
		err = d.read()
	}
	return l, err
}

// rewind checks where a handler is, and goes back to the moment.
func (d *durable) rewind(c *SavedConn, same bool) error {
	unused, again := c.Received-d.used, c.Sent-d.sent
	switch {
	case d.ended:
		return nil
	case unused > slotBuffer || int(d.offset)+int(unused) > slotBuffer:
		return fmt.Errorf("its record says that %d bytes wait at %d", unused, d.offset)
	case again > 0 && !same:
		return errors.New("it was in the middle of an answer, and the configuration of the handler has changed")
	}
	d.skip, c.Sent = again, d.sent
	return nil
}

// again has the handler do again what it did since the moment.
func (d *durable) again(c *conn) {
	var err error
	if c.handler = c.l.handler; !d.ended {
		err = d.restore(c)
	}
	switch {
	case c.fd < 0:
	case c.is(served): // it rests until there is an upstream
		c.server().take(d.unused(c), false)
	case err != nil || d.ended:
		c.waitFor(mux.Readable)
		c.settle(nil, err)
	default:
		c.waitFor(mux.Readable)
		c.proceed(d.unused(c))
	}
}

// restore gives the connection its handler, as it was at the moment.
func (d *durable) restore(c *conn) error {
	if d.opened {
		switch h := c.l.handler.(type) {
		case *Reply:
			c.handler = repliedTo{}
			return nil
		case *httpHandler:
			one := &httpConn{h: h}
			if err := one.decode(d.state); err != nil {
				return err
			}
			c.handler = one
			if one.req.begun || !one.served {
				one.arm(c, c.l.tunables.RequestTimeout)
			} else {
				one.arm(c, c.l.tunables.KeepaliveTimeout)
			}
			return nil
		}
	}
	return c.begin()
}

// relay checks where the two sides of a relay are; it returns the descriptor of
// the upstream, -1 if there is none.
func (r *recovery) relay(d *durable, c *SavedConn) (up int, err error) {
	var b beyond
	data, err := d.record(recordUpstream)
	if err == nil {
		err = b.decode(data)
	}
	if err != nil {
		return -1, err
	}
	up = take(r.upstreams, d.number(), b.cookie)
	if up < 0 {
		return -1, errors.New("the keeper does not have the connection to its upstream")
	}
	p, err := positionsOf(up)
	if err == nil && p.broken {
		err = errGone
	}
	if err != nil {
		return up, err
	}
	d.got = p.consumed - b.consumed
	passed := p.written - b.written // to the upstream, with the header
	header := min(uint64(len(b.header)), passed)
	there, err := flowRest(d.buffer(0), d.word(wordThere), b.from+passed-header, c.Received)
	if err != nil {
		return up, fmt.Errorf("to its upstream: %w", err)
	}
	back, err := flowRest(d.buffer(1), d.word(wordBack), c.Sent-b.sent, d.got)
	if err != nil {
		return up, fmt.Errorf("from its upstream: %w", err)
	}
	if int(header) < len(b.header) {
		there = slices.Concat(b.header[header:], there)
	}
	d.joined, d.touched = true, [2]int{slotBuffer, slotBuffer}
	c.Handler.Relay = &SavedRelay{
		Server: b.server, Open: true, File: 1, Pool: b.pool, Upstream: b.address, There: SavedFlow{Rest: there}, Back: SavedFlow{Rest: back},
	}
	return up, nil
}

// flowRest is what a flow has read up to `read` and not written from `written` on;
// its buffer begins at `begins`.
func flowRest(buffer []byte, begins, written, read uint64) ([]byte, error) {
	if written-begins > slotBuffer || read-begins > slotBuffer || written > read {
		return nil, fmt.Errorf("its record says that its buffer begins at %d; %d bytes were written and %d read", begins, written, read)
	}
	from, to := int(written-begins), int(read-begins)
	return buffer[from:to:to], nil
}
