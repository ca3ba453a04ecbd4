package listeners

import (
	"slices"
	"time"
)

const (
	// unheldPerTurn bounds how many begin to connect in one turn.
	unheldPerTurn = 64
	// probeHeld is how often one of those that are held tries again when nobody
	// checks the upstreams. When it gets through, all do.
	probeHeld = time.Second
	// heldGaps is how many places of those that have gone are kept at most.
	heldGaps = 1024
)

// hold keeps a relay until an upstream is back.
func (f *forwarder) hold(r *relay) {
	if r == nil {
		return
	}
	r.f, r.place = f, len(f.held)
	f.held = append(f.held, r)
	if f.spec.Health == nil && f.probe == nil {
		f.probe = f.l.set.loop.After(probeHeld, f.probeOne)
	}
}

func (f *forwarder) dropHeld(r *relay) {
	if r.place >= len(f.held) || f.held[r.place] != r {
		return
	}
	f.held[r.place] = nil
	if f.gaps++; f.gaps > heldGaps {
		f.rehold(f.held)
	}
}

// rehold is those who are held, without gaps.
func (f *forwarder) rehold(some []*relay) {
	f.held, f.gaps = nil, 0
	for _, r := range some {
		f.hold(r)
	}
}

// unhold lets those go on that wait for an upstream, the first first.
func (f *forwarder) unhold() {
	n := min(len(f.held), unheldPerTurn)
	some := slices.Clone(f.held[:n])
	rest := f.held[n:]
	f.rehold(rest)
	for _, r := range some {
		if r != nil {
			f.release(r)
		}
	}
	if len(rest) > 0 {
		_ = f.l.set.loop.Post(f.unhold) // ended: all is closed
	}
}

// probeOne lets the first go on, which finds out.
func (f *forwarder) probeOne() {
	f.probe = nil
	f.rehold(f.held)
	if len(f.held) > 0 {
		first := f.held[0]
		f.rehold(f.held[1:])
		f.release(first)
	}
}

// release lets one go on that was held.
func (f *forwarder) release(r *relay) {
	f.l.set.loop.Disarm(&r.timer)
	r.tried = r.tried[:0]
	r.begin()
}
