package listeners

import (
	"fmt"
	"slices"
)

// A State is where a Listener is in its life.
//
//	          Attach           max_connections
//	Opened ------------> Running <---------> Limited
//	   |                    |                   |
//	   |                    | Stop              | Stop
//	   |                    v                   |
//	   |                 Draining <-------------+
//	   |                    |
//	   |                    | last connection ends, or the deadline
//	   |   Close            v
//	   +----------------> Closed
type State uint8

// The states.
const (
	Opened   State = iota // bound and listening, on no loop yet
	Running               // accepting
	Limited               // accepting no more until a connection ends
	Draining              // sockets closed, connections may finish
	Closed                // nothing left
)

var stateNames = [...]string{"opened", "running", "limited", "draining", "closed"}

// String returns the name in lower case.
func (s State) String() string { return stateNames[s] }

var nextStates = [...][]State{
	Opened:   {Running, Closed},
	Running:  {Limited, Draining},
	Limited:  {Running, Draining},
	Draining: {Closed},
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
	if l.set != nil && l.set.changed != nil && !attached {
		l.set.changed(l)
	}
}
