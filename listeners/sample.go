package listeners

// A Sample is what waits at a listener's sockets and what the kernel dropped
// there: two system calls for each, cheap enough to take all the time.
type Sample struct {
	Waiting, Limit uint32 // of the socket that is fullest
	Drops          uint64 // of all
	Stalled        bool   // it drops what clients begin with, as it shall
}

// Sample reads the kernel, and remembers the most that waited.
func (l *Listener) Sample() (s Sample) {
	s.Stalled = l.paused == Stall
	for _, e := range l.endpoints {
		sock := e.sock()
		if sock.fd < 0 {
			continue
		}
		s.Drops += uint64(sock.memory()[MemDrops])
		if sock.addr.Network.Datagram() {
			continue
		}
		waiting, limit, err := sock.acceptQueue()
		if err != nil {
			continue // it cannot be told
		}
		sock.peak = max(sock.peak, waiting)
		if uint64(waiting)*uint64(s.Limit) >= uint64(s.Waiting)*uint64(limit) {
			s.Waiting, s.Limit = waiting, limit
		}
	}
	return s
}

// Stirred reports whether a sample may differ from the last: something has come
// since Stirred was asked last, or may wait where the loop does not see it.
func (l *Listener) Stirred() bool {
	c := l.stats
	came := c.Accepted + l.handed + c.Rejected + c.ReceivedDatagrams
	stirred := came != l.came || l.state != Running || l.passed || l.paused != NotPaused || len(c.Errors) > 0
	l.came = came
	for _, e := range l.endpoints {
		switch s := e.(type) {
		case *streamSocket:
			stirred = stirred || s.resting
		case *packetSocket:
			stirred = stirred || s.resting
		}
		stirred = stirred || e.sock().shut || e.sock().lent
	}
	return stirred
}
