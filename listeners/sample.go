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
	s.Stalled, s.Drops = l.paused == Stall, l.Drops()
	for _, e := range l.endpoints {
		sock := e.sock()
		if sock.fd < 0 || sock.addr.Network.Datagram() {
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

// Drops is what the kernel has dropped at all sockets, as Sample has it.
func (l *Listener) Drops() (drops uint64) {
	for _, e := range l.endpoints {
		if sock := e.sock(); sock.fd >= 0 {
			drops += uint64(sock.memory()[MemDrops])
		}
	}
	return drops
}
