package sockets

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// A side is one of the two lines of calls that wait.
type side uint8

const (
	reading side = iota // accept, receive
	writing             // connect, send
	sides
)

// A Socket is one socket of a client. Loop only.
type Socket struct {
	listeners.Descriptor // FD is -1 once closed
	t                    *Table
	id                   uint64 // SO_COOKIE
	owner                string
	role                 Role
	of                   string            // the listener, of a line for its connections: see Table.offers
	peer                 listeners.Address // as accept or connect knew it
	path                 boundPath
	conn                 *listeners.Offered // nil: the descriptor is the socket's own

	timeout   time.Duration // Forever, 0 not to wait, or how long
	idle      time.Duration
	active    time.Duration // when it was last used, on the loop's clock
	idleTimer mux.Timer

	want    mux.Events
	lines   [sides][]*call
	polls   []*poll
	streams int
	resting bool // the poller told of something that was of no use to anyone
	again   mux.Timer

	place   uint64 // of what is taken next: see taken
	unread  returned[Datagram]
	waiting returned[*Socket] // accepted, for nobody yet
}

type alarm func()

// Expired is mux.Alarm.
func (a alarm) Expired() { a() }

func (s *Socket) name() string {
	if s.of != "" {
		return "listeners/" + s.of
	}
	return prefix + strconv.FormatUint(s.id, 16)
}

// Ready lets the first call of each line try, one a turn, and polls look.
func (s *Socket) Ready(ev mux.Events) {
	moved := false
	if ev&mux.Readable != 0 {
		moved = s.advance(reading)
	}
	if ev&mux.Writable != 0 {
		moved = s.advance(writing) || moved
	}
	moved = s.look() || moved
	if !moved {
		s.rest()
	}
	s.update()
}

// advance lets the first in line try; it reports whether it got on.
func (s *Socket) advance(side side) bool {
	if len(s.lines[side]) == 0 {
		return false
	}
	c := s.lines[side][0]
	c.moved = false
	err := c.try(s)
	if again(err) {
		return c.moved
	}
	c.finish(err)
	return true
}

// restTime is how long a descriptor rests that is ready in a way nobody waits
// for: a hang-up, that pollers tell of unasked and for ever.
const restTime = 5 * time.Millisecond

func (s *Socket) rest() {
	s.resting = true
	s.t.loop.Arm(&s.again, s.t.loop.Clock()+restTime, alarm(func() {
		s.resting = false
		s.update()
	}))
}

// interest is what calls wait for.
func (s *Socket) interest() (want mux.Events) {
	if len(s.lines[reading]) > 0 {
		want |= mux.Readable
	}
	if len(s.lines[writing]) > 0 {
		want |= mux.Writable
	}
	for _, p := range s.polls {
		want |= p.interest(s)
	}
	return want
}

// update tells the poller what is waited for.
func (s *Socket) update() {
	want := s.interest()
	if s.resting {
		want = 0
	}
	if s.FD < 0 || want == s.want {
		return
	}
	if err := s.waitFor(want); err != nil {
		s.close(err)
		return
	}
	s.want = want
}

func (s *Socket) waitFor(want mux.Events) error {
	if s.conn != nil {
		return s.conn.WaitFor(want)
	}
	return s.t.loop.Modify(s.FD, want)
}

// busy reports whether a client waits, or has it in a stream.
func (s *Socket) busy() bool {
	return s.streams > 0 || len(s.lines[reading])+len(s.lines[writing])+len(s.polls) > 0
}

// idled closes what nobody has used for so long.
func (s *Socket) idled() {
	now := s.t.loop.Clock()
	if s.busy() {
		s.active = now
	}
	if now < s.active+s.idle {
		s.t.loop.Arm(&s.idleTimer, s.active+s.idle, alarm(s.idled))
		return
	}
	s.t.log.Debug("socket closed: its client did not use it", "socket", s.name(), "owner", s.owner, "idle", s.idle)
	s.close(gone(strconv.FormatUint(s.id, 16)))
}

// close ends it. Who waits is told why.
func (s *Socket) close(why error) {
	if s.FD < 0 {
		return
	}
	s.t.hide(s)
	s.release()
	s.answer(why)
}

// answer tells all who wait that it is over.
func (s *Socket) answer(why error) {
	for side := range s.lines {
		for len(s.lines[side]) > 0 {
			s.lines[side][0].finish(why)
		}
	}
	for len(s.polls) > 0 {
		s.polls[0].finish(why)
	}
}

// release closes the descriptor, and what was accepted on it for nobody.
func (s *Socket) release() {
	s.t.loop.Disarm(&s.again)
	if s.conn != nil {
		s.FD = -1
		s.conn.Close()
		return
	}
	_ = s.t.loop.Remove(s.FD) // before the close, as always
	s.path.remove()
	s.CloseNow()
	s.FD = -1
	s.t.set.Release()
	for _, w := range s.waiting {
		w.what.release()
	}
	s.waiting, s.unread = nil, nil
}

// A boundPath is the file that a Unix socket was bound to. It goes with the
// socket: a client elsewhere could not take it away.
type boundPath struct {
	path     string
	dev, ino uint64
}

func pathOf(a listeners.Address) (p boundPath) {
	var st unix.Stat_t
	if a.Path != "" && a.Path[0] == '/' && unix.Lstat(a.Path, &st) == nil {
		p = boundPath{a.Path, st.Dev, st.Ino}
	}
	return p
}

func (p boundPath) remove() {
	var st unix.Stat_t
	if p.path != "" && unix.Lstat(p.path, &st) == nil && st.Dev == p.dev && st.Ino == p.ino {
		_ = unix.Unlink(p.path) // it stays behind
	}
}
