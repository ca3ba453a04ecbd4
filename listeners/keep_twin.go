package listeners

import "github.com/sockmgr/sockmgr/mux"

// A process may end while new sockets take the place of old ones (rebind.go).
// Then both come back: the younger is the listener's, and the older, its twin,
// serves what waits in its queue and leaves, as it would have.

// claimTwins takes what came back of sockets that were being replaced.
func (k *Kept) claimTwins(l *Listener) error {
	for _, e := range l.endpoints {
		s := e.sock()
		if s.back == nil || s.foreign || s.addr.Network.Class() != OnTCP {
			continue
		}
		for r := k.twin(l.Name, s); r != nil; r = k.twin(l.Name, s) {
			twin, err := k.reclaim(r, s.asked, l.spec)
			l.twins = append(l.twins, l.endpoint(twin))
			if err != nil {
				l.closeSockets()
				return named(l.Name, err)
			}
		}
	}
	return nil
}

// attachTwins lets sockets that others have taken the place of serve what waits
// in their queues.
func (l *Listener) attachTwins() {
	for _, e := range l.twins {
		if err := l.set.loop.Add(e.sock().fd, mux.Readable, e.(mux.Handler)); err != nil {
			l.set.log.Error("what waits at a socket that was replaced is lost", "listener", l.Name, "address", e.sock().addr, "error", err)
			e.sock().close()
			continue
		}
		l.joined(e)
		l.leaving = append(l.leaving, e)
		l.part(e)
	}
	l.twins = nil
}
