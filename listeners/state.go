package listeners

import (
	"fmt"
	"slices"
)

// A State is where a Listener is in its life.
//
//	         Attach      max_connections, accept_rate
//	Opened -----------> Running <------------> Limited
//	  |                 |  ^  |                |   |
//	  |           Pause |  |  | Stop      Stop |   | Pause
//	  |                 v  |  v                v   v
//	  |            Paused -+--> Draining <------- Paused
//	  |               ^  Drain, Stop | |
//	  |               +--------------+ |  the last connection has ended, or
//	  |   Close          the sockets   |  the deadline has passed
//	  +----------------> Closed <------+
//	                     stay (Drain), or are closed (Stop)
//
// Resume goes back to Running from Paused, and from the Draining that Drain
// began.
type State uint8

// The states.
const (
	Opened   State = iota // bound and listening, on no loop yet
	Running               // accepting
	Limited               // accepting no more until a connection ends, or the rate allows
	Paused                // bound, and accepting nothing
	Draining              // accepting nothing, connections may finish
	Closed                // nothing left
)

var stateNames = [...]string{"opened", "running", "limited", "paused", "draining", "closed"}

// String returns the name in lower case.
func (s State) String() string { return stateNames[s] }

var nextStates = [...][]State{
	Opened:   {Running, Closed},
	Running:  {Limited, Paused, Draining},
	Limited:  {Running, Paused, Draining},
	Paused:   {Running, Draining},
	Draining: {Running, Paused, Closed},
	Closed:   {},
}

// to changes the state and tells whoever watches. Going where the drawing has
// no arrow is a mistake in this package.
func (l *Listener) to(s State) {
	if !slices.Contains(nextStates[l.state], s) {
		panic(fmt.Sprintf("listener %s: %v to %v", l.Name, l.state, s))
	}
	attached := l.state == Opened // who attaches knows
	l.state = s
	if s == Closed {
		l.calmDown()
	}
	if a, ok := l.handler.(Attacher); ok && s == Closed && l.set != nil {
		a.Detach()
	}
	if l.set != nil {
		l.stir()
	}
	if l.set != nil && l.set.changed != nil && !attached {
		l.set.changed(l)
	}
}
