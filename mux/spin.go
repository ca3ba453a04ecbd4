package mux

import "time"

// To put a processor to sleep and to wake it takes longer than a short exchange
// takes in all, most of all in a virtual machine. So before it waits a loop looks
// a few times more, as long as that is mostly worth it: with one client that
// asks again as soon as it is answered the rate doubles, and an answer costs less.
const (
	spinTime  = 10 * time.Microsecond // the most that one spin takes
	spinWorth = 16                    // the most that finds count
	spinCosts = 4                     // finds that a spin in vain outweighs
	spinAgain = 64                    // waits until it is tried again
	spinTurns = 64                    // finds, after which others of the process have their turn
)

// spinning decides whether to spin before a wait.
type spinning struct {
	worth int // finds, less spinCosts for each spin in vain
	found int // in all
	rest  int // waits without a spin that are to come
}

// due reports whether this wait begins with a spin.
func (s *spinning) due() bool {
	if s.rest == 0 {
		return true
	}
	s.rest--
	return false
}

// spun is told what came of a spin.
func (s *spinning) spun(found bool) {
	if !found {
		if s.worth -= spinCosts; s.worth <= 0 {
			s.worth, s.rest = 0, spinAgain
		}
		return
	}
	s.worth = min(s.worth+1, spinWorth)
	if s.found++; s.found%spinTurns == 0 {
		s.rest = 1
	}
}
