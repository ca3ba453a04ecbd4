package listeners

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// A CloseReason is why a connection was closed. What began its end counts, not
// what came of that: a client that resets after the last response was ended by
// the handler.
type CloseReason uint8

// The reasons. NotClosed is none.
const (
	NotClosed        CloseReason = iota
	ClosedByPeer                 // it finished sending, and got its answer
	ClosedByHandler              // as HTTP does after "Connection: close"
	ClosedByDeadline             // the handler's: keepalive_timeout, request_timeout
	ClosedByReset                // RST, or the peer was gone before it had taken all
	ClosedByTimeout              // the kernel gave up: tcp.user_timeout, keepalive, no route any more
	ClosedByIdle                 // idle_timeout
	ClosedBySize                 // more than read_buffer_bytes at once
	ClosedByDrain                // its listener drained or was stopped
	ClosedByRequest              // someone asked to close it
	ClosedByHandoff              // it goes on in another process
	ClosedByProxy                // there was no good PROXY header
	ClosedByAge                  // max_age
	ClosedByUpstream             // the upstream reset it, or none took it
	ClosedByTLS                  // the handshake failed, or there is no route for its ClientHello
	ClosedByFault                // a fault option
	ClosedByError                // any other error of a system call
	ClosedByStall                // write_timeout
	ClosedBySlow                 // too much was kept for peers that do not read
	closeReasons                 // how many there are
)

// CloseReasons is how many reasons there are, NotClosed included: the size of a
// table of counts.
const CloseReasons = int(closeReasons)

// closeWords are stable: clients, metrics and events have them.
var closeWords = [closeReasons]string{
	ClosedByPeer: "eof", ClosedByHandler: "handler", ClosedByDeadline: "handler_timeout", ClosedByReset: "reset",
	ClosedByTimeout: "timed_out", ClosedByIdle: "idle_timeout", ClosedBySize: "too_long", ClosedByDrain: "drain",
	ClosedByRequest: "closed_by", ClosedByHandoff: "handoff", ClosedByProxy: "proxy_protocol", ClosedByAge: "max_age",
	ClosedByUpstream: "upstream", ClosedByTLS: "tls", ClosedByFault: "fault", ClosedByError: "error",
	ClosedByStall: "write_timeout", ClosedBySlow: "slow_reader",
}

// String returns the word; it is empty of NotClosed.
func (r CloseReason) String() string { return closeWords[r] }

// closeErrors is what connections are closed with.
var closeErrors = []struct {
	err    error
	reason CloseReason
}{
	{io.EOF, ClosedByPeer},
	{unix.ECONNRESET, ClosedByReset},
	{unix.EPIPE, ClosedByReset}, // it is what RST becomes once the peer has sent FIN
	{errIdle, ClosedByIdle},
	{errDrained, ClosedByDrain},
	{errClosedByRequest, ClosedByRequest},
	{errAge, ClosedByAge},
	{errFault, ClosedByFault},
	{errMessageSize, ClosedBySize},
	{errHandedOff, ClosedByHandoff},
	{errNoReceiver, ClosedByUpstream},
	{errProxyHeader, ClosedByProxy},
	{errTLS, ClosedByTLS},
	{errNoUpstream, ClosedByUpstream},
	{errLoop, ClosedByUpstream},
	{errHops, ClosedByUpstream},
	{errNotTaken, ClosedByUpstream},
	{errUpstreamReset, ClosedByUpstream},
	{errStuck, ClosedBySize},
	{errStalled, ClosedByStall},
	{errSlow, ClosedBySlow},
	{unix.ETIMEDOUT, ClosedByTimeout},
	{unix.EHOSTUNREACH, ClosedByTimeout}, // instead of ETIMEDOUT, after an ICMP error
	{unix.ENETUNREACH, ClosedByTimeout},
}

func reasonOf(why error) CloseReason {
	for _, e := range closeErrors {
		if errors.Is(why, e.err) {
			return e.reason
		}
	}
	return ClosedByError
}

// because notes why the connection is about to end. The first reason stays.
func (c *conn) because(r CloseReason) {
	if c.ending == NotClosed {
		c.ending = r
	}
}

// becauseDone is because of a handler that is done.
func (c *conn) becauseDone() {
	switch {
	case c.is(eof):
		c.because(ClosedByPeer)
	case c.is(told):
		c.because(ClosedByDrain)
	default:
		c.because(ClosedByHandler)
	}
}

// endedBy settles why the connection ends, now that it is closed because of
// why. Once all was written nothing that happens is a reason any more; an error
// before that is one, since the peer did not get all.
func (c *conn) endedBy(why error) CloseReason {
	if c.ending == NotClosed || why != io.EOF && !c.is(lingering) { //nolint:errorlint // as it is passed to close
		c.ending = reasonOf(why)
	}
	return c.ending
}
