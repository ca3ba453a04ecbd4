package listeners

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// What follows is how one process leaves listeners and connections to the next.
// Everything that a connection is goes along: bytes that are not consumed or not
// sent yet, counters, deadlines, what its handler knows of the request in hand.
//
// Times are on the loop's clock, which goes on in the next process: see
// mux.ContinueLoop. Descriptors go beside it: a File is a place in the row of
// them. The next process may be another version of the program: a field that is
// not known there is lost without a word, so who adds one that matters raises
// the version of the protocol (internal/succeed).

// Saved is all that moves, or a part of it: see Transfer.Next.
type Saved struct {
	Listeners []SavedListener
	Conns     []SavedConn
	Handlers  [][]byte        // that connections have, and their listeners no more: see marshalHandler
	Back      []SavedReturned // what came back from the keeper, and nobody has claimed
	Arenas    []SavedArena    // of durable connections
	Executors []SavedExecutor // of programs
	Stderrs   []SavedStderr   // of those
}

// SavedArena is memory that durable connections have slots in.
type SavedArena struct{ Number, File int }

// SavedDurable is the slot of a durable connection, which has the rest.
type SavedDurable struct {
	Slot   int
	Got    uint64 // of the upstream of a relay
	Joined bool   // there is one
}

// SavedReturned is a Returned.
type SavedReturned struct {
	Name string
	File int
}

// SavedListener is a listener with its sockets.
type SavedListener struct {
	Name     string
	Spec     []byte // JSON; what it was tuned to
	State    State
	Paused   PauseMode
	Drain    SavedDrain
	Until    time.Duration // when the drain, or its lame-duck time, is over; 0: no drain goes on
	Counters Counters

	Sockets []SavedSocket

	Throttle  *SavedThrottle
	Gates     *[2]time.Duration // buckets of the rates that all connections share
	Upstreams []SavedUpstream
	Sessions  []SavedSession // of datagrams
	Place     uint64         // of the next connection that is offered to clients
	Passing   *SavedPassing

	Failing  string        // why it accepts nothing for now
	TryAgain time.Duration // until when
}

// SavedDrain is a drain.
type SavedDrain struct {
	Began, Until time.Time
	Initial, Cut int64
	Timeout      time.Duration
	From         time.Duration
	Lame         bool
}

// SavedThrottle is what accept_rate has let in.
type SavedThrottle struct {
	Bucket, Calm, Until time.Duration
	Resting             bool
}

// SavedSocket is one socket of a listener.
type SavedSocket struct {
	File        int
	Family      int
	Asked, Addr Address
	Inode       uint64
	Peak        uint32
	Dev, Ino    uint64
	Made        time.Time
	Shut, Lost  bool
	Groups      []SavedGroup

	Stored      string
	Foreign     bool
	ForeignName string
	Lent        bool

	Leaving  bool // its address was let go: it takes what waits there
	Ending   uint8
	Owed     int
	Paused   PauseMode
	Filtered bool

	Unsent []SavedDatagram
	Late   [2][]SavedDatagram // of a fault, each way
}

// SavedGroup is a multicast group.
type SavedGroup struct {
	IP    netip.Addr
	Iface string
}

// SavedDatagram is one that waits.
type SavedDatagram struct {
	At                        time.Duration // when it goes on
	To, Control, Header, Data []byte
}

// SavedUpstream is what is known of an upstream.
type SavedUpstream struct {
	Pool                int
	Address             string
	Addrs               []Address
	Turn                int
	Down                bool
	Failures, Successes uint32
	TryAgain            time.Duration
	LastError           string
	Connects, Failed    uint64
	Current             int64
	ResolveAt, CheckAt  time.Duration
}

// SavedSession is a source of datagrams and the socket to its upstream.
type SavedSession struct {
	File            int
	Socket          int // of its listener
	Source, Proxied netip.AddrPort
	Name            string
	Pool            int
	Upstream        string
	Active          time.Duration
	To              []byte
	Control, Header []byte
	Together        int
	Gathers         bool
}

// SavedConn is a connection.
type SavedConn struct {
	Listener string
	File     int
	Family   uint8
	Packets  bool
	Cookie   uint64
	Remote   netip.AddrPort
	Proxied  netip.AddrPort // invalid: there was no PROXY header

	Opened, Active, Deadline  time.Duration
	Received, Sent, Tolerated uint64
	Reads, Writes             uint32

	EOF       bool // the peer has finished sending
	Done      bool // the handler has
	Lingering bool
	Told      bool // to end soon
	Lingers   bool // SO_LINGER may be on
	Ending    CloseReason

	In          []byte // read, and not consumed
	Out, Shared []byte // written, and not taken by the kernel

	Pace    *SavedPace
	Link    *SavedLink
	Durable *SavedDurable

	Handler SavedHandler
}

// SavedHandler is what serves a connection. Without any of the pointers it is the
// handler of that kind, which knows nothing of single connections.
type SavedHandler struct {
	Kind    string
	HTTP    *SavedHTTP
	Relay   *SavedRelay
	Handoff *SavedHandoff
	Offered *SavedOffered
	Exec    *SavedExec
	Hello   []byte // of a ClientHello, as far as it has come
	Ended   bool   // of chargen: its listener drains
}

// Kinds of SavedHandler beside those of HandlerSpec.
const (
	savedPreface  = "preface"  // the PROXY header is still to come
	savedGreeting = "greeting" // the ClientHello is
	savedRelay    = "relay"
	savedOffered  = "offered"
	savedExec     = "program"
)

// SavedHTTP is how far an HTTP request is.
type SavedHTTP struct {
	Spec int // 1 + a place in Saved.Handlers; 0: its listener's handler

	Served, Armed, Draining, Resting bool

	Left, Room                                                                  int64
	Size                                                                        uint32
	Phase                                                                       uint8
	Begun, Head, HTTP10, Host, Length, Chunked, Coded, Expects, Closes, Persist bool
}

// SavedRelay is a connection's upstream.
type SavedRelay struct {
	Server      string
	Open        bool // else it is chosen anew
	File        int
	Pool        int
	Upstream    string
	Until       time.Duration // that it is held at most
	There, Back SavedFlow
}

// SavedFlow is one direction of a relay.
type SavedFlow struct {
	Rest      []byte
	EOF, Shut bool
	Lost      unix.Errno
	Pipe      *SavedPipe // has what was spliced and not taken
}

// SavedPipe is a pipe, with what is in it: it moves as it is.
type SavedPipe struct{ R, W, Held int }

// SavedHandoff is a connection that waits for a process.
type SavedHandoff struct{ Until time.Duration }

// SavedOffered is a connection that waits for a client, or has one.
type SavedOffered struct {
	Place uint64
	Since time.Duration
	Early []byte
	Taken bool
}

// SavedPace is what the rates of a connection have let through.
type SavedPace struct{ Buckets, Until [2]time.Duration }

// SavedLink is what faults have made of a connection.
type SavedLink struct {
	Faults     Faults
	Began      time.Duration
	In, Out    SavedLine
	Fate       uint8
	Gone, Over bool
}

// SavedLine is what a link holds in one direction.
type SavedLine struct {
	Data             []byte
	At               []time.Duration
	N                []int // bytes that may pass from At on
	Errno            unix.Errno
	Piece            int
	Pause, Rest, End time.Duration
	Cut, Ended, Over bool
	Total, Most      int64
}
