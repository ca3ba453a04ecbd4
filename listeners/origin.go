package listeners

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// An origin is where connections come from: an address, or a network of as many
// bits as source_prefix_v4 and source_prefix_v6 say. There is one only while a
// connection of it is open. Loop only.
type origin struct {
	key  netip.Addr // its lowest
	open int64
}

// originKey is the lowest address of the origin that a belongs to.
func (t *Tunables) originKey(a netip.Addr) netip.Addr {
	bits := t.SourcePrefixV6
	if a.Is4() {
		bits = t.SourcePrefixV4
	}
	n, err := a.Prefix(int(bits)) // which drops the zone
	if err != nil {
		return a
	}
	return n.Addr()
}

// isCrowded reports whether who connects has as many connections as it may.
func (l *Listener) isCrowded(from *unix.RawSockaddrAny) bool {
	if from.Addr.Family == unix.AF_UNIX {
		return false
	}
	s := l.origins[l.tunables.originKey(peerAddr(from).Addr())]
	return s != nil && s.open >= l.tunables.MaxPerSource
}

// joinOrigin counts the connection in.
func (c *conn) joinOrigin() {
	if c.family != unix.AF_UNIX {
		c.rarely().origin = c.l.countOrigin(c.remote.Addr())
	}
}

// countOrigin counts in one that comes from there.
func (l *Listener) countOrigin(from netip.Addr) *origin {
	key := l.tunables.originKey(from)
	s := l.origins[key]
	if s == nil {
		s = &origin{key: key}
		if l.origins == nil {
			l.origins = map[netip.Addr]*origin{}
		}
		l.origins[key] = s
	}
	s.open++
	return s
}

// leaveOrigin counts it out.
func (c *conn) leaveOrigin() {
	if s := c.rare.origin; s != nil {
		c.rare.origin = nil
		c.l.leaveOrigin(s)
	}
}

func (l *Listener) leaveOrigin(s *origin) {
	if s.open--; s.open == 0 && l.origins[s.key] == s {
		delete(l.origins, s.key)
	}
}

// originRule is what origins are counted by.
type originRule struct {
	on     bool
	v4, v6 int64
}

func (t *Tunables) originRule() originRule {
	return originRule{t.MaxPerSource > 0, t.SourcePrefixV4, t.SourcePrefixV6}
}

// recount goes by a rule that was changed: connections are counted anew, some in
// each turn.
func (l *Listener) recount() {
	rule := l.tunables.originRule()
	if rule == l.counted || !rule.on && !l.counted.on {
		return
	}
	l.counted, l.origins = rule, nil
	l.callHome() // where they are counted anew
	l.set.sweep(l, func(c *conn) {
		if c.rare != nil {
			c.leaveOrigin()
		}
		if l.tunables.MaxPerSource > 0 {
			c.joinOrigin()
		}
	}, func() {})
}

// Sources is how many sources have connections, while they are counted.
func (l *Listener) Sources() int { return len(l.origins) }
