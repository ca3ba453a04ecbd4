package listeners

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// A Peer is who some bytes came from, and where a reply goes: one stream
// connection, or the sender of one datagram. Its methods are for the loop
// only, inside a call to a Handler.
type Peer interface {
	// Write sends p. On a stream it gives p to the kernel and keeps a copy of
	// what the kernel did not take, up to write_buffer_bytes; n < len(p) with
	// a nil error means that this bound is reached: return from Handle and be
	// called again when the peer has drained it. On a datagram socket it
	// sends one datagram. An error is the end of the stream.
	Write(p []byte) (n int, err error)
	// WriteShared is Write for bytes that never change: what the kernel does
	// not take is kept by reference, so nothing is copied and no bound
	// applies. It must be the last write of a call to Handle, which is called
	// only when nothing is pending.
	WriteShared(p []byte) error
	// Pending reports whether output waits for the peer to drain it, or input
	// for the next turn of the loop because there was much output in this one.
	Pending() bool
	// Now is the time this turn of the loop began.
	Now() time.Time
	// SetDeadline asks for Expired once t has passed, if the handler is an
	// Expirer; the zero time asks for none. Streams only.
	SetDeadline(t time.Time)
	// Tunables are the listener's present settings. Read only.
	Tunables() *Tunables
}

// A Handler consumes what peers send. It runs on the loop, so it must not
// block, and p is valid only until it returns.
//
// On a stream, Handle says how much of p it consumed. The rest is kept and
// offered again, in front of what arrives next, or as soon as pending output
// has drained and others have had their turn. It is never offered more than read_buffer_bytes: a handler
// that cannot get on with that much must fail. An error ends the stream:
// io.EOF after pending output has been sent, any other at once. On a datagram
// socket p is one whole datagram, n is ignored and an error drops it.
type Handler interface {
	Handle(from Peer, p []byte) (n int, err error)
}

// An Opener is a Handler that wants to know of a new stream. It returns the
// Handler of this stream: itself, or one with state of its own. An error is
// as in Handle.
type Opener interface {
	Open(Peer) (Handler, error)
}

// An Expirer is a Handler that sets deadlines. An error is as in Handle.
type Expirer interface {
	Expired(Peer) error
}

// A Feeder is a Handler of a stream that sends without being asked. Feed is
// called, at most once in a turn of the loop, when the kernel takes more and
// nothing is pending. It shall write a bounded amount. An error is as in Handle.
type Feeder interface {
	Feed(Peer) error
}

// A Drainer is a Handler that can end a stream early while its listener
// drains: Drain reports whether the stream is at rest, so that closing it now
// loses nothing; if not, it ends the stream itself as soon as it can.
type Drainer interface {
	Drain(Peer) (atRest bool)
}

// An Attacher is a Handler that does something of its own while it is the
// handler of a listener on a loop. Both are called on the loop.
type Attacher interface {
	// Attach begins. before is the handler that it takes the place of, nil if
	// there was none.
	Attach(l *Listener, before Handler)
	// Detach ends what Attach began: another has taken its place, or the
	// listener is closed. Peers that it serves still are served on.
	Detach()
}

// A Rester is a Drainer and Expirer whose peers may be about to ask again: a
// stream that is at rest gets this time for that, in which Expired ends it.
// What arrives in it is answered, and is the last.
type Rester interface {
	Rest(from Peer, grace time.Duration)
}

// A HandlerSpec is the configuration of one kind of handler: a plain value
// that can be compared, saved as JSON and turned into a Handler.
type HandlerSpec interface {
	// Kind is the name of the kind: echo, discard, http, ...
	Kind() string
	// Datagram reports whether it can serve datagram sockets.
	Datagram() bool
	// Validate returns every fault, each a Violation or joined Violations.
	Validate() error
	// New returns the Handler. One Handler serves all peers of a listener.
	New() Handler
}

// kinds has one line for each kind of handler; each is made in a file of its
// own.
var kinds = map[string]func() HandlerSpec{
	"echo":    func() HandlerSpec { return &Echo{} },
	"discard": func() HandlerSpec { return &Discard{} },
	"reply":   func() HandlerSpec { return &Reply{} },
	"http":    func() HandlerSpec { return &HTTP{} },
	"daytime": func() HandlerSpec { return &Daytime{} },
	"time":    func() HandlerSpec { return &Time{} },
	"chargen": func() HandlerSpec { return &Chargen{} },
	"forward": func() HandlerSpec { return &Forward{} },
	"handoff": func() HandlerSpec { return &Handoff{} },
	"remote":  func() HandlerSpec { return &Remote{} },
	"exec":    func() HandlerSpec { return &Exec{} },
	"func":    func() HandlerSpec { return &Func{} },
}

// HandlerKinds returns the names of all kinds, sorted.
func HandlerKinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// savedHandler is how a HandlerSpec is saved.
type savedHandler struct {
	Kind   string          `json:"kind"`
	Config json.RawMessage `json:"config"`
}

func marshalHandler(h HandlerSpec) ([]byte, error) {
	config, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return json.Marshal(savedHandler{h.Kind(), config})
}

func unmarshalHandler(data []byte) (HandlerSpec, error) {
	var s savedHandler
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	newSpec, ok := kinds[s.Kind]
	if !ok {
		return nil, fmt.Errorf("unknown handler kind %q", s.Kind)
	}
	h := newSpec()
	return h, json.Unmarshal(s.Config, h)
}

// errDone ends a stream once what was written has been sent.
var errDone = io.EOF
