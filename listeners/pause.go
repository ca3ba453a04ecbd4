package listeners

import (
	"encoding/json"
	"fmt"
	"slices"
)

// A PauseMode is what clients meet while a listener is paused.
type PauseMode uint8

// The modes.
const (
	NotPaused PauseMode = iota
	// Hold lets them wait: handshakes go on until the kernel's queue is full,
	// datagrams wait until the socket's buffer is.
	Hold
	// Stall drops what they begin with, SYNs and datagrams, so that they try
	// again after 1 s, 3 s, 7 s. TCP needs CAP_NET_ADMIN.
	Stall
	// Refuse refuses them at once (ECONNREFUSED); the address stays bound.
	Refuse
)

var pauseModes = [...]string{"", "hold", "stall", "refuse"}

// String returns the name in lower case, nothing for NotPaused.
func (m PauseMode) String() string { return pauseModes[m] }

// MarshalJSON returns the name.
func (m PauseMode) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

// UnmarshalJSON takes a name.
func (m *PauseMode) UnmarshalJSON(data []byte) error {
	var name string
	if err := json.Unmarshal(data, &name); err != nil {
		return err
	}
	i := slices.Index(pauseModes[:], name)
	if i < 0 {
		return fmt.Errorf("%q is not a pause mode", name)
	}
	*m = PauseMode(i)
	return nil
}

// check refuses a mode that one of the addresses cannot have.
func (m PauseMode) check(listen []Address) error {
	for _, a := range listen {
		var why string
		switch {
		case m == Stall && !a.Network.ip():
			why = "a client of a Unix socket cannot be stalled: the kernel drops nothing there"
		case m == Refuse && a.Network == Unixgram:
			why = "a Unix datagram socket that is bound takes datagrams"
		case m == Refuse && a.abstract():
			why = "an abstract name that refuses could not be had back without a moment in which it is free"
		default:
			continue
		}
		return &Violation{Field: "spec.pause_mode", Message: fmt.Sprintf("%v is not for %v: %s", m, a, why)}
	}
	return nil
}

// Paused is the mode in force.
func (l *Listener) Paused() PauseMode { return l.paused }

// Pause stops accepting, or changes what clients meet, and leaves open
// connections alone. What refuses from now on takes first what waits, since
// the kernel has told those clients that they are connected. When it fails
// nothing has changed.
func (l *Listener) Pause(mode PauseMode) error {
	if err := l.setPaused(l.endpoints, mode); err != nil {
		return err
	}
	l.paused = mode
	if x := l.passer(); x != nil {
		x.halt() // it would go on accepting
	}
	if l.state == Running || l.state == Limited {
		l.to(Paused)
	}
	return nil
}

// Resume accepts again, those first who have waited. It ends a drain. When it
// fails the listener is paused as before.
func (l *Listener) Resume() error {
	if l.paused == NotPaused {
		return nil
	}
	if err := l.setPaused(l.endpoints, NotPaused); err != nil {
		return err
	}
	l.paused = NotPaused
	l.set.loop.Disarm(&l.deadline)
	l.drain = drain{}
	l.to(Running)
	return nil
}

// setPaused changes all endpoints, or none.
func (l *Listener) setPaused(endpoints []endpoint, mode PauseMode) error {
	for i, e := range endpoints {
		if err := e.pause(mode); err != nil {
			for _, e := range endpoints[:i+1] {
				if back := e.pause(l.paused); back != nil {
					l.set.log.Error("cannot go back to how it was", "listener", l.Name, "address", e.sock().addr, "paused", l.paused, "error", back)
				}
			}
			return pauseFault(l.Name, e.sock().addr, mode, err)
		}
	}
	return nil
}
