package listeners

// flowBuffer is where the next read of a flow goes. There is nothing in it: a flow
// reads no more before all that it has read is gone.
func (d *durable) flowBuffer(r *relay, f *flow) []byte {
	if f == &r.there {
		d.setWord(wordThere, r.c.received)
		return d.buffer(0)
	}
	d.setWord(wordBack, d.got)
	return d.buffer(1)
}

// flowed counts what was read.
func (d *durable) flowed(r *relay, f *flow, n int) {
	if f == &r.there {
		d.touch(0, n)
		return
	}
	d.got += uint64(n)
	d.touch(1, n)
}

// join makes the upstream of a durable connection so too, before it gets its first
// byte. If that cannot be, neither is the connection any more: of a Unix socket
// the kernel does not count.
func (r *relay) join(header []byte) {
	c := r.c
	d := c.durable()
	b := beyond{from: d.used, sent: c.sent, pool: r.f.poolOf(r.up), address: r.up.Address, server: r.server, header: header}
	var err error
	if b.cookie, err = cookieAt(int(r.fd)); err != nil {
		c.forsake()
		return
	}
	p, err := positionsOf(int(r.fd))
	if err != nil {
		c.forsake()
		return
	}
	b.consumed, b.written = p.consumed, p.written
	d.setWord(wordThere, d.used)
	d.setWord(wordBack, 0)
	d.got = 0
	if !d.putRecord(recordUpstream, &b) || !d.set.store(upstreamName(d.number()), int(r.fd)) {
		c.forsake()
		return
	}
	d.joined = true
	d.setWord(wordUpstream, 1)
}

// part ends the connection to the upstream, as release does that of the client.
func (d *durable) part(fd int) {
	d.setWord(wordUpstream, 0)
	hangUp(fd)
	d.set.remove(upstreamName(d.number()))
	d.joined = false
}
