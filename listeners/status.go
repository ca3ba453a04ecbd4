package listeners

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// TCPInfo is struct tcp_info as the kernel filled it in.
type TCPInfo struct {
	unix.TCPInfo
	Size int // bytes that this kernel filled in
}

// Queue is what waits at a socket.
type Queue struct {
	Accept, AcceptLimit uint32 // connections; listening sockets
	AcceptPeak          uint32 // most that waited, as sampled
	Receive             uint64 // bytes that can be read: SIOCINQ
	Send                uint64 // bytes not acknowledged: SIOCOUTQ
	Unsent              uint64 // bytes not sent: SIOCOUTQNSD
	UserReceive         uint64 // bytes kept for the handler
	UserSend            uint64 // bytes kept for the peer
	Drops               uint64 // by the kernel, at the socket
}

// Memory is SO_MEMINFO, in the kernel's order (sock_diag(7)).
type Memory [9]uint32

// The places in Memory.
const (
	MemReceiveAlloc = iota
	MemReceiveLimit
	MemSendAlloc
	MemSendLimit
	MemForwardAlloc
	MemSendQueued
	MemOptions
	MemBacklog
	MemDrops
)

// SocketStatus is what the kernel says of one socket of a listener.
type SocketStatus struct {
	FD     int
	Cookie uint64
	Inode  uint64
	Local  Address // getsockname
	State  uint8   // TCP_LISTEN and so on; 0 for others
	Waits  mux.Events
	Queue  Queue
	Memory Memory
	Made   time.Time
}

// Status is what is true of a listener now.
type Status struct {
	State     State
	Bound     []Address
	Active    int64
	Stats     Stats
	Queue     Queue            // of all sockets together
	Lost      uint64           // of Queue.Drops: datagrams
	Sockets   []SocketStatus   // in full
	Upstreams []UpstreamStatus // of forward
	Paused    PauseMode
	Drain     DrainStatus // going on, or over and not taken back
	ByRate    bool        // limited by accept_rate, not by max_connections
	Starved   bool        // running, but no descriptor or memory is left to accept with
	Limit     string      // why it is Limited
	Faults    string      // that are on: delay, slice_bytes
	Program   int         // the pid of the program that has the sockets; 0: none
	TLS       *TLSStatus  // nil: there is none
}

// Status asks the kernel. With full it asks for more, of each socket.
func (l *Listener) Status(full bool) Status {
	st := Status{State: l.state, Active: l.active, Stats: l.stats.Stats, Paused: l.paused}
	st.ByRate = l.state == Limited && !l.isFull()
	st.Upstreams = l.Upstreams()
	st.Faults = l.faults.String()
	st.Drain = DrainStatus{Began: l.drain.began, Until: l.drain.until, Initial: l.drain.initial, Cut: l.drain.cut}
	if l.state == Limited {
		st.Limit = l.limitText()
	}
	if x := l.passer(); x != nil && x.holder != nil {
		st.Program = x.holder.pid
	}
	if l.tls != nil {
		tls := l.tls.Status()
		st.TLS = &tls
	}
	for _, e := range l.endpoints {
		s := e.sock()
		if s.fd < 0 || s.replaced && e.stuck() {
			continue
		}
		q := Queue{}
		mem := s.memory()
		q.Drops = uint64(mem[MemDrops])
		var state uint8
		if stream, ok := e.(*streamSocket); ok {
			st.Starved = st.Starved || stream.resting && l.state == Running && !l.passed
			if s.addr.Network.ip() {
				info, _ := s.tcpInfo() // unknown is 0
				q.Accept, q.AcceptLimit, state = info.Unacked, info.Sacked, info.State
			} else {
				q.Accept, q.AcceptLimit, _ = s.acceptQueue()
			}
			s.peak = max(s.peak, q.Accept)
			q.AcceptPeak = s.peak
		} else {
			st.Lost += q.Drops
		}
		st.Bound = append(st.Bound, s.addr)
		st.Queue.Accept += q.Accept
		st.Queue.AcceptLimit += q.AcceptLimit
		st.Queue.AcceptPeak += q.AcceptPeak
		st.Queue.Drops += q.Drops
		if full {
			one := e.status(q, mem)
			one.State = state // closed while it refuses
			st.Sockets = append(st.Sockets, one)
		}
	}
	return st
}

func (s *streamSocket) status(q Queue, mem Memory) SocketStatus {
	return s.socket.status(q, mem, s.waits())
}

func (s *packetSocket) status(q Queue, mem Memory) SocketStatus {
	q.Receive, q.Send = s.bytes()
	q.UserSend = uint64(s.pending)
	return s.socket.status(q, mem, s.waits())
}

func (s *packetSocket) waits() mux.Events {
	switch {
	case s.resting:
		return 0
	case len(s.unsent) > 0:
		return mux.Writable
	default:
		return mux.Readable
	}
}

func (s *streamSocket) waits() mux.Events {
	if s.resting {
		return 0
	}
	return mux.Readable
}

func (s *socket) status(q Queue, mem Memory, waits mux.Events) SocketStatus {
	return SocketStatus{
		FD: s.fd, Cookie: cookieOf(s.fd), Inode: s.number(), Local: s.local(), Waits: waits, Queue: q, Memory: mem, Made: s.made,
	}
}

// local asks getsockname.
func (s *socket) local() Address {
	a, err := s.bound()
	if err != nil {
		return Address{}
	}
	return a
}

// memory reads SO_MEMINFO. Zeros when the kernel has none.
func (s *socket) memory() (m Memory) {
	_, _ = getsockopt(s.fd, unix.SOL_SOCKET, unix.SO_MEMINFO, &m)
	return m
}

// bytes reads SIOCINQ and SIOCOUTQ.
func (s *socket) bytes() (receive, send uint64) {
	in, _ := unix.IoctlGetInt(s.fd, unix.SIOCINQ) // 0 where there is none
	out, _ := unix.IoctlGetInt(s.fd, unix.SIOCOUTQ)
	return uint64(in), uint64(out)
}

// acceptQueue returns how many connections wait to be accepted and how many
// may: tcpi_unacked and tcpi_sacked of a listening TCP socket.
func (s *socket) acceptQueue() (waiting, limit uint32, err error) {
	if !s.addr.Network.ip() {
		return unixQueue(s.number())
	}
	info, err := s.tcpInfo()
	return info.Unacked, info.Sacked, err
}

func (s *socket) tcpInfo() (info TCPInfo, err error) {
	info.Size, err = getsockopt(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO, &info.TCPInfo)
	return info, err
}

// ConnState is how far the end of a connection is.
type ConnState uint8

// The states of a connection.
const (
	ConnOpen        ConnState = iota
	ConnHandshaking           // it waits for a PROXY header, a TLS ClientHello or the end of a handshake
	ConnConnecting            // to its upstream, or waiting for one
	ConnHalfClosed            // the peer has finished sending
	ConnClosing               // all is written, or is being
	ConnClosed                // gone: what a ConnWatcher is told last
)

// Detail is what of a connection to ask the kernel for.
type Detail uint8

// The details. A million connections are listed with what is needed only.
const (
	DetailTCP  Detail = 1 << iota // TCP_INFO: two system calls
	DetailSize                    // inode, queues and memory: five
	DetailFull = DetailTCP | DetailSize
)

// ConnStatus is what is true of a connection now.
type ConnStatus struct {
	Listener       string
	Loop           int // the number of the one that serves it
	FD             int
	Cookie         uint64
	Network        Network
	State          ConnState
	Local, Remote  Address
	Proxied        Address // who a PROXY header says it is from
	Upstream       Address // where it is relayed to
	Opened, Active time.Time
	Received, Sent uint64 // bytes
	Reads, Writes  uint32
	TLS            *TLSInfo // what was negotiated, or what a ClientHello asked for; nil: nothing yet, or there is none
	Program        int      // the pid of what serves it; 0: the daemon does, or it is being started
	Faults         string   // that have hit it: delay, slice_bytes
	Waits          mux.Events
	Peer           *unix.Ucred // of Unix sockets
	Reason         CloseReason // once it closes
	Detail         Detail      // what of the following is there
	Inode          uint64
	Queue          Queue
	Memory         Memory
	TCP            *TCPInfo  // of TCP
	Congestion     string    // of TCP
	Err            error     // of ConnClosed: what it was closed with
	Ended          time.Time // of ConnClosed
}

func (c *conn) status(detail Detail) ConnStatus {
	loop, n, s := c.l.set.loop, c.network(), c.socket()
	st := ConnStatus{
		Listener: c.l.Name, Loop: c.l.set.number, FD: int(c.fd), Cookie: c.cookie(), Network: n, Local: s.local(), Remote: Address{Network: n, IP: c.peerName()},
		Opened: loop.Time(c.opened), Active: loop.Time(c.active), Waits: c.want,
		Received: c.received, Sent: c.sent, Reads: c.reads, Writes: c.writes, Reason: c.ending,
	}
	switch {
	case c.is(done):
		st.State = ConnClosing
	case c.is(eof):
		st.State = ConnHalfClosed
	case c.isBeginning():
		st.State = ConnHandshaking
	}
	if c.rare != nil && c.rare.proxied.IsValid() {
		st.Proxied = Address{Network: TCP, IP: c.rare.proxied}
	}
	if k := c.link(); k != nil {
		st.Faults = k.f.String()
	}
	if !n.ip() {
		st.Remote = s.peer()
		st.Peer, _ = unix.GetsockoptUcred(s.fd, unix.SOL_SOCKET, unix.SO_PEERCRED) // nil: unknown
	}
	if c.is(served) {
		c.server().tell(&st)
	}
	if h, ok := c.handler.(afterTLS); ok {
		st.TLS = h.info
	}
	c.ask(&st, detail)
	return st
}

// ask asks the kernel for what st does not have.
func (c *conn) ask(st *ConnStatus, detail Detail) {
	s := c.socket()
	if missing := detail &^ st.Detail; missing&DetailSize != 0 {
		c.askSize(s, st)
	}
	if missing := detail &^ st.Detail; missing&DetailTCP != 0 && st.Network == TCP {
		if info, err := s.tcpInfo(); err == nil {
			st.TCP = &info
		}
		st.Congestion, _ = unix.GetsockoptString(s.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}
	st.Detail |= detail
}

func (c *conn) askSize(s *socket, st *ConnStatus) {
	var fi unix.Stat_t
	if unix.Fstat(s.fd, &fi) == nil {
		st.Inode = fi.Ino
	}
	st.Memory = s.memory()
	st.Queue = Queue{UserReceive: uint64(len(c.input())), UserSend: uint64(c.pending()), Drops: uint64(st.Memory[MemDrops])}
	if c.is(served) {
		st.Queue.UserReceive, st.Queue.UserSend = c.server().held()
	}
	if k := c.link(); k != nil {
		st.Queue.UserReceive += uint64(len(k.in.data))
		st.Queue.UserSend += uint64(len(k.out.data))
	}
	st.Queue.Receive, st.Queue.Send = s.bytes()
	if st.Network == TCP {
		unsent, _ := unix.IoctlGetInt(s.fd, unix.SIOCOUTQNSD)
		st.Queue.Unsent = uint64(unsent)
	}
}

// peer asks getpeername; most Unix clients have no name.
func (s *socket) peer() Address {
	sa, err := unix.Getpeername(s.fd)
	if err != nil {
		return Address{Network: s.addr.Network}
	}
	return addressOf(s.addr.Network, sa)
}
