package listeners

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Faults are what makes connections bad on purpose: the fault options.
type Faults struct {
	Share      int64         // of 100: how many are hit
	Direction  int64         // a word of fault.direction
	Delay      time.Duration // and so on; 0 is off
	Jitter     time.Duration
	Rate       int64
	Slice      int64
	SliceDelay time.Duration
	CutOff     int64 // 0 or 1
	SlowClose  time.Duration
	CloseAfter time.Duration
	ResetAfter time.Duration
	CloseBytes int64
	ResetBytes int64
	Loss       int64 // of 100
}

// faults are those that are on; zero when none does anything.
func (t *Tunables) faults() Faults {
	f := t.Faults
	if f.Slice == 0 {
		f.SliceDelay = 0
	}
	if f == (Faults{Share: f.Share, Direction: f.Direction}) || f.Share == 0 {
		return Faults{}
	}
	return f
}

// Refuses says why the option will not do for a listener of this spec; nothing
// if it will. Who has the descriptors sees to faults itself.
func (s Spec) Refuses(o *Option) string {
	if o.Name == durabilityOption {
		return s.refusesDurable()
	}
	if !strings.HasPrefix(o.Name, "fault.") {
		return ""
	}
	if s.concurrency() == InProcess {
		return fmt.Sprintf("is not for the %s handler in a process: that reads and writes the connection, not the daemon", s.Handler.Kind())
	}
	switch s.Handler.(type) {
	case *Handoff:
		return "is not for handoff: the process reads and writes the connection, not the daemon"
	case *Remote:
		return "is not for remote: calls of its clients are the kernel's"
	}
	return ""
}

// String lists what is on, by the names of the options: delay, slice_bytes.
func (f Faults) String() string {
	on, none := []string(nil), Faults{Share: f.Share}
	if f == none {
		return ""
	}
	t := Tunables{Faults: f}
	for _, o := range faultOptions {
		if o.Type != String && o.Name != "fault.share_percent" && *o.tunable(&t) != 0 {
			on = append(on, strings.TrimPrefix(o.Name, "fault."))
		}
	}
	return strings.Join(on, ", ")
}

// strike reports whether bytes that move so are hit.
func (f *Faults) strike(d direction) bool { return f.Direction == 0 || direction(f.Direction-1) == d }

// hits chooses by a key that stays: a change of other faults finds the same
// ones, and a larger share has those of the smaller in it. Keys may be near
// each other, so they are mixed (the finalizer of MurmurHash3).
func (f *Faults) hits(key uint64) bool {
	key ^= key >> 33
	key *= 0xff51afd7ed558ccd
	key ^= key >> 33
	key *= 0xc4ceb9fe1a85ec53
	key ^= key >> 33
	return key%100 < uint64(f.Share)
}

// held is for how long what moves so is held.
func (f *Faults) held(d direction) time.Duration {
	if !f.strike(d) {
		return 0
	}
	if f.Jitter == 0 {
		return f.Delay
	}
	return f.Delay + rand.N(f.Jitter+1)
}

// link is what faults of the connection are; nil: none has hit it.
func (c *conn) link() *link {
	if c.rare == nil {
		return nil
	}
	return c.rare.link
}

// isHit reports whether the faults in force are for the connection. A message
// has no parts, and a program has the descriptor.
func (c *conn) isHit() bool {
	f := &c.l.faults
	_, program := c.handler.(*execConn)
	return *f != (Faults{}) && !c.is(packets) && !program && f.hits(c.cookie())
}

// startFaults puts a link in front of a connection that is hit.
func (c *conn) startFaults() {
	if c.isHit() {
		k := &link{c: c, f: c.l.faults, began: c.l.set.loop.Clock(), kernel: c.want}
		k.apply()
		c.rarely().link = k
		k.stir()
	}
}

// refault goes by faults that were changed.
func (c *conn) refault() {
	k := c.link()
	switch {
	case k == nil && c.isHit():
		if r := c.relay(); r != nil {
			r.back.unsplice(r)
		}
		c.forsake() // what a link holds is nowhere else
		c.startFaults()
		k = c.link()
	case k == nil || k.over:
		return
	default:
		k.change()
	}
	if k.f.Rate > 0 || c.isPaced() {
		c.repace()
	}
	if c.fd >= 0 {
		k.ready(0)
	}
}

// refault goes by faults that were changed, for connections some in each turn.
func (l *Listener) refault() {
	now := l.tunables.faults()
	if now == l.faults {
		return
	}
	l.tellFaults(now)
	l.faults = now
	for _, e := range l.endpoints {
		if s, ok := e.(*packetSocket); ok && s.late != nil {
			s.late.hurry(now)
		}
	}
	l.set.sweep(l, (*conn).refault, func() {})
}

// tellFaults has it in the log that traffic is made bad from now on, or no more.
func (l *Listener) tellFaults(now Faults) {
	if now == (Faults{}) {
		l.set.log.Info("faults are off", "listener", l.Name)
		return
	}
	l.set.log.Info("faults are on: traffic is made bad on purpose", "listener", l.Name, "faults", now.String(), "share_percent", now.Share)
}

// An end is what a fault does to a connection.
type end uint8

const (
	noEnd end = iota
	closeIt
	resetIt
)
