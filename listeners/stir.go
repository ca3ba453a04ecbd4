package listeners

import "slices"

// Where nothing happens nobody needs to look: so that ten thousand listeners that
// are idle cost no more than one, each in which something does is noted, once,
// until somebody has taken the note.

// stir notes that something has happened: something came, was counted or was
// changed. It is called for each byte that moves, and so costs nothing then.
func (l *Listener) stir() {
	if !l.stirred {
		l.noteStirred()
	}
}

func (l *Listener) noteStirred() {
	l.stirred = true
	l.set.stirred = append(l.set.stirred, l)
}

// Stirred takes up to most of the listeners, or of the shards of other loops'
// listeners, whose counters, state or queues may have changed since they were
// taken last.
func (s *Set) Stirred(most int) []*Listener {
	left := max(0, len(s.stirred)-most)
	some := slices.Clone(s.stirred[left:])
	clear(s.stirred[left:])
	s.stirred = s.stirred[:left]
	for _, l := range some {
		l.stirred = false
	}
	return some
}

// Unseen reports whether something may wait at the listener that the loop is not
// told of. At all others what comes is reported, and stirs.
func (l *Listener) Unseen() bool {
	if l.state != Running || l.passed || l.paused != NotPaused {
		return true
	}
	for _, e := range l.endpoints {
		switch s := e.(type) {
		case *streamSocket:
			if s.resting {
				return true
			}
		case *packetSocket:
			if s.resting {
				return true
			}
		}
	}
	return false
}
