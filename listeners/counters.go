package listeners

import (
	"maps"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// Stats are the counters that every status has.
type Stats struct {
	Accepted uint64 // connections
	Rejected uint64 // connections closed, and datagrams dropped, unanswered
	Received uint64 // bytes
	Sent     uint64 // bytes
}

// Counters are kept by the loop, and read on it. They outlive a Listener: who
// attaches the next one of the same name hands them on.
type Counters struct {
	Stats
	ReceivedDatagrams uint64
	SentDatagrams     uint64
	ActivePeak        int64 // most connections open at once
	RejectedBy        [rejections]uint64
	ClosedBy          [CloseReasons]uint64
	Errors            map[CallError]uint64 // nil until there is one
	Times             *Times               // nil until there is a connection
}

// Times is how long things took. A listener that never had a connection has
// none: ten thousand idle ones cost nothing.
type Times struct {
	// AcceptDelay, in microseconds, is from a connection being complete to
	// accept returning it. Of TCP the kernel tells, to a tick of its clock (1 to
	// 10 ms), how long ago the handshake ended; below a tick, and of Unix
	// sockets, it is how long ago the loop woke in the turn that accepted.
	AcceptDelay mux.Histogram
	// FirstByte, in microseconds, is from the turn that accepted to the turn
	// that read something first.
	FirstByte mux.Histogram
	// Duration, in milliseconds, is the life of connections that have ended.
	Duration mux.Histogram
	// RTT, in microseconds, is the smoothed round trip that TCP_INFO had when a
	// connection ended; when several end in one turn of the loop, of the first.
	RTT mux.Histogram
}

// A Rejection is why a connection was closed, or a datagram dropped, without an
// answer.
type Rejection uint8

// The rejections.
const (
	RejectedLimit        Rejection = iota // no place on the loop for the connection
	RejectedTooLong                       // the datagram was longer than what is read at once
	RejectedHandler                       // the handler did not take the datagram
	RejectedUnanswerable                  // the answer might go round for ever, or its sender has no name
	RejectedBuffer                        // write_buffer_bytes was full of earlier answers
	RejectedSend                          // the kernel refused to send the answer
	RejectedProxy                         // no good PROXY header came in time
	RejectedUpstream                      // no upstream took the connection, or the datagram
	RejectedAccess                        // the access policy does not let it in
	RejectedSource                        // max_connections_per_source
	RejectedTLS                           // the handshake failed, no good ClientHello came in time, or there is no route for it
	RejectedFault                         // fault.loss_percent, or more than fault.delay may hold
	RejectedAmplifies                     // the answer was longer than the datagram, and than udp.max_reply_bytes
	RejectedReplyRate                     // udp.reply_rate
	RejectedLoop                          // a forward leads back to its own listener
	rejections                            // how many there are
)

// Rejections is how many there are.
const Rejections = int(rejections)

var rejectionWords = [rejections]string{
	RejectedLimit: "limit", RejectedTooLong: "too_long", RejectedHandler: "handler",
	RejectedUnanswerable: "unanswerable", RejectedBuffer: "buffer", RejectedSend: "send",
	RejectedProxy: "proxy_protocol", RejectedUpstream: "upstream", RejectedAccess: "access", RejectedSource: "source",
	RejectedTLS: "tls", RejectedFault: "fault", RejectedAmplifies: "amplifies", RejectedReplyRate: "reply_rate", RejectedLoop: "loop",
}

// String returns the word that clients and metrics have for it.
func (r Rejection) String() string { return rejectionWords[r] }

// A CallError is a system call that failed, and with what.
type CallError struct {
	Call  string
	Errno unix.Errno
}

// String is accept4:EMFILE.
func (e CallError) String() string { return e.Call + ":" + unix.ErrnoName(e.Errno) }

// reject counts what gets no answer.
func (c *Counters) reject(why Rejection) {
	c.Rejected++
	c.RejectedBy[why]++
}

// failed counts a system call that did not do what it is for.
func (c *Counters) failed(call string, errno unix.Errno) {
	if c.Errors == nil {
		c.Errors = map[CallError]uint64{}
	}
	c.Errors[CallError{call, errno}]++
}

// times makes what is not there: before the first connection, and after
// ResetPeaks.
func (c *Counters) times() *Times {
	if c.Times == nil {
		c.Times = new(Times)
	}
	return c.Times
}

// Copy returns what may leave the loop; the histograms only with times.
func (c *Counters) Copy(times bool) Counters {
	out := *c
	out.Errors, out.Times = maps.Clone(c.Errors), nil
	if times && c.Times != nil {
		t := *c.Times
		out.Times = &t
	}
	return out
}

// countIn counts a connection that is open from here on, on whatever loop.
func (l *Listener) countIn() {
	l.active++
	l.set.used++
	l.set.open++
	l.stats.ActivePeak = max(l.stats.ActivePeak, l.active)
}

// admitted counts a connection that was taken on. The first of a turn has
// waited longest: if that is less than a tick, the others are not asked for. Those
// that another loop has accepted, s is nil, are.
func (l *Listener) admitted(c *conn, s *streamSocket) {
	if l.whole == nil { // else it was counted before it came here
		l.countIn()
	}
	l.stats.Accepted++
	l.stir()
	waited := time.Since(l.set.loop.Now()) + l.set.loop.Clock() - c.opened
	if s == nil || !s.prompt {
		if info := c.tcpInfo(); info != nil {
			// Nothing was sent yet, so the kernel counts from the handshake.
			waited = max(waited, time.Duration(info.Last_data_sent)*time.Millisecond)
			if s != nil {
				s.prompt = info.Last_data_sent == 0
			}
		}
	}
	l.stats.times().AcceptDelay.Observe(inUnits(waited, time.Microsecond))
}

// begun counts the first byte of a connection.
func (c *conn) begun() {
	c.l.stats.times().FirstByte.Observe(inUnits(c.l.set.loop.Clock()-c.opened, time.Microsecond))
}

// counted counts a connection that is about to be closed.
func (c *conn) counted(why CloseReason) {
	c.l.stats.ClosedBy[why]++
	t := c.l.stats.times()
	now := c.l.set.loop.Clock()
	t.Duration.Observe(inUnits(now-c.opened, time.Millisecond))
	if c.l.set.rttAsked == now {
		return
	}
	c.l.set.rttAsked = now
	if info := c.tcpInfo(); info != nil && info.Rtt > 0 {
		t.RTT.Observe(uint64(info.Rtt))
	}
}

// tcpInfo is nil of what is not TCP. Asking costs a quarter of a microsecond.
func (c *conn) tcpInfo() *unix.TCPInfo {
	if c.family == unix.AF_UNIX {
		return nil
	}
	info := &c.l.set.info // the loop's, so that nothing is allocated
	if _, err := getsockopt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_INFO, info); err != nil {
		return nil
	}
	return info
}

// ResetPeaks begins peaks and times anew. Counters never go back.
func (l *Listener) ResetPeaks() {
	for _, e := range l.endpoints {
		e.sock().peak = 0
	}
	l.stats.ResetPeaks(l.active)
	l.eachShard(func(sh *Listener) { sh.stats.ResetPeaks(0) })
}

// ResetPeaks is for who has the counters of a listener that is on no loop.
func (c *Counters) ResetPeaks(active int64) { c.ActivePeak, c.Times = active, nil }

// inUnits rounds up, so that a value is never above the bound of its bucket.
func inUnits(d, unit time.Duration) uint64 { return uint64((max(d, 0) + unit - 1) / unit) }
