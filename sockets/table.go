package sockets

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// Bounds.
const (
	MaxPayload  = 1 << 20 // bytes of one call
	MaxParked   = 256     // calls that wait on one side of a socket
	MaxOwned    = 1024    // sockets of one client, unless Config says otherwise
	DefaultIdle = 5 * time.Minute
)

// prefix is the collection in the names of sockets.
const prefix = "sockets/"

// Forever is the timeout of calls that wait as long as their client does.
const Forever time.Duration = -1

// A Caller is who makes a call.
type Caller struct {
	Name  string // uid:1000
	Admin bool   // may use what others made
	// Watch, unless it is nil, is told of each call that takes something. When
	// the client gives the call up, even after the answer, withdraw gives back
	// what was taken, before any call that comes later; it does not wait.
	// answered ends the call: with so many bytes, or -1 when nothing was taken.
	Watch func(withdraw func()) (answered func(bytes int))
}

// Config says what New needs.
type Config struct {
	Loop *mux.Loop
	Set  *listeners.Set // whose budget of descriptors is used
	Log  hclog.Logger
	// Beside are loops with connections of listeners only.
	Beside []Beside
	// Owned is the most sockets of one client; 0 is MaxOwned.
	Owned int
}

// Beside is another loop.
type Beside struct {
	Loop *mux.Loop
	Set  *listeners.Set
}

// A Table is all sockets of clients on one loop.
type Table struct {
	loop  *mux.Loop
	set   *listeners.Set
	log   hclog.Logger
	owned int // most of one client

	beside []Beside

	// Loop only.
	byID   map[uint64]*Socket
	count  map[string]int                  // of sockets, by owner
	offers map[*listeners.Listener]*Socket // without a descriptor: calls that wait for a connection
	buf    []byte                          // what is received lands here; nil until something is
	closed bool
}

// New returns an empty Table.
func New(c Config) *Table {
	if c.Owned == 0 {
		c.Owned = MaxOwned
	}
	t := &Table{loop: c.Loop, set: c.Set, log: c.Log, owned: c.Owned, beside: c.Beside, byID: map[uint64]*Socket{}, count: map[string]int{}, offers: map[*listeners.Listener]*Socket{}}
	c.Set.Offers(t.offered)
	return t
}

// Close closes every socket. Calls that wait are told that the daemon ends, as
// are all later ones. It is for before the loop is stopped.
func (t *Table) Close() {
	_ = t.loop.Post(func() { // fails only when the loop has ended, and nobody waits
		t.closed = true
		for _, s := range t.byID {
			s.close(draining())
		}
		for _, s := range t.offers {
			s.answer(draining())
		}
	})
}

// on runs f on the loop.
func (t *Table) on(ctx context.Context, f func() error) error {
	err := t.loop.Do(ctx, func() error {
		if t.closed {
			return draining()
		}
		return f()
	})
	if errors.Is(err, mux.ErrClosed) {
		return draining()
	}
	return err
}

// with runs f on the loop, for a socket that who may use.
func (t *Table) with(ctx context.Context, who Caller, id string, f func(*Socket) error) error {
	return t.on(ctx, func() error {
		s, err := t.find(who, id)
		if err != nil {
			return err
		}
		return f(s)
	})
}

// find returns a socket that who may use. That it is asked for is use.
func (t *Table) find(who Caller, id string) (*Socket, error) {
	s := t.lookup(id)
	switch {
	case s == nil:
		return nil, gone(id)
	case !who.Admin && s.owner != who.Name:
		return nil, foreign(s, who)
	}
	s.active = t.loop.Clock()
	return s, nil
}

// lookup finds a socket by its name, sockets/1f or 1f; nil when there is none.
func (t *Table) lookup(id string) *Socket {
	cookie, err := strconv.ParseUint(strings.TrimPrefix(id, prefix), 16, 64)
	if err != nil {
		return nil
	}
	return t.byID[cookie]
}

// room reports whether who may have another socket.
func (t *Table) room(who Caller) error {
	if t.count[who.Name] < t.owned {
		return t.set.Acquire()
	}
	return t.tooMany(who)
}

func (t *Table) tooMany(who Caller) error {
	return &listeners.Fault{
		Reason: listeners.LimitReached, Message: fmt.Sprintf("%s has %d sockets, which is the most for one client", who.Name, t.owned),
		Err: unix.EMFILE, Fix: "close some with CloseSocket: sockctl sock ls", Meta: map[string]string{"owner": who.Name, "limit": strconv.Itoa(t.owned)},
	}
}

// adopt puts a descriptor on the loop, for which there was room. When it fails
// the descriptor is closed.
func (t *Table) adopt(who Caller, d listeners.Descriptor, idle time.Duration) (*Socket, error) {
	s := &Socket{Descriptor: d, t: t, id: d.Cookie(), owner: who.Name, timeout: Forever, idle: idle, active: t.loop.Clock()}
	if err := t.loop.Add(d.FD, 0, s); err != nil {
		d.CloseNow()
		t.set.Release()
		return nil, err
	}
	t.list(s)
	return s, nil
}

// list makes a socket known, and its owner's.
func (t *Table) list(s *Socket) {
	t.byID[s.id] = s
	t.count[s.owner]++
	t.loop.Arm(&s.idleTimer, t.loop.Clock()+s.idle, alarm(s.idled))
}

// hide makes it unknown; it stays on the loop.
func (t *Table) hide(s *Socket) {
	delete(t.byID, s.id)
	if t.count[s.owner]--; t.count[s.owner] == 0 {
		delete(t.count, s.owner)
	}
	t.loop.Disarm(&s.idleTimer)
}

// buffer is where the next bytes land.
func (t *Table) buffer(n int) []byte {
	if t.buf == nil {
		t.buf = make([]byte, MaxPayload)
	}
	return t.buf[:n]
}
