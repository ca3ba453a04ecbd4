package listeners

import "time"

// change goes by faults that were changed. What is held is not held for longer
// than it would be now.
func (k *link) change() {
	before := k.f
	k.f, k.gone = k.c.l.faults, !k.c.isHit()
	if k.gone {
		k.f = Faults{}
	}
	if k.f.CloseAfter != before.CloseAfter || k.f.ResetAfter != before.ResetAfter {
		k.began = k.now()
	}
	if k.f.CloseBytes != before.CloseBytes || k.f.ResetBytes != before.ResetBytes {
		k.in.total, k.out.total = 0, 0
	}
	k.apply()
	now := k.now()
	for d, q := range [directions]*line{reading: &k.in, writing: &k.out} {
		var held time.Duration
		if k.f.strike(direction(d)) {
			held = k.f.Delay + k.f.Jitter
		}
		q.hurry(now+held, now+held+k.slowClose(direction(d)))
		q.rest = min(q.rest, now+q.pause)
	}
	if c := k.c; c.is(lingering) && !k.out.over {
		c.deadline = k.lingerUntil()
		c.arm()
	}
}

// apply gives both lines what they go by.
func (k *link) apply() {
	for d, q := range [directions]*line{reading: &k.in, writing: &k.out} {
		q.piece, q.pause, q.cut, q.most = 0, 0, false, 0
		if k.f.strike(direction(d)) {
			q.piece, q.pause, q.cut = int(k.f.Slice), k.f.SliceDelay, k.f.CutOff != 0
			q.most = int64(earlier(time.Duration(k.f.CloseBytes), time.Duration(k.f.ResetBytes)))
		}
	}
}

// isCut reports whether nothing that the peer sends is seen.
func (c *conn) isCut() bool {
	k := c.link()
	return k != nil && k.in.cut
}

// slowClose is how much longer the end of a stream is held.
func (k *link) slowClose(d direction) time.Duration {
	if !k.f.strike(d) {
		return 0
	}
	return k.f.SlowClose
}

// timeLimit is when the connection ends by a fault; 0: never.
func (k *link) timeLimit() time.Duration {
	if d := earlier(k.f.CloseAfter, k.f.ResetAfter); d > 0 {
		return max(k.began+d, 1)
	}
	return 0
}

// count notes what comes of bytes that have passed. It only notes: a handler
// may be in the middle of it.
func (k *link) count(q *line, d direction) {
	if q.most == 0 || q.total < q.most {
		return
	}
	switch {
	case k.f.ResetBytes > 0 && q.total >= k.f.ResetBytes:
		k.fate = resetIt
	case d == reading: // as if the peer had finished
		k.c.because(ClosedByFault)
		q.clear()
		q.finish(0)
	default:
		k.fate = max(k.fate, closeIt)
	}
}

// checkEnd ends what a fault shall end.
func (k *link) checkEnd() {
	if k.over {
		return
	}
	now := k.now()
	switch {
	case k.f.ResetAfter > 0 && now >= k.began+k.f.ResetAfter:
		k.fate = resetIt
	case k.f.CloseAfter > 0 && now >= k.began+k.f.CloseAfter:
		k.fate = max(k.fate, closeIt)
	}
	switch c := k.c; k.fate {
	case resetIt:
		c.reset(errFault)
	case closeIt:
		k.fate, k.over, k.f = noEnd, true, Faults{}
		k.apply()
		k.in.clear()
		k.out.clear()
		k.out.hurry(now, now)
		c.cutShort()
	case noEnd:
	}
}

// cutShort ends the connection with FIN, whatever is under way on it.
func (c *conn) cutShort() {
	c.because(ClosedByFault)
	if c.is(lingering) {
		return // it ends anyway
	}
	if c.is(served) && !c.server().release() {
		c.server().closed(errFault)
		c.flags &^= served
		c.handler = Discard{}
	}
	c.queues = nil
	c.settle(nil, errDone)
}
