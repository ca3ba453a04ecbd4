package listeners

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// Handoff passes every accepted connection to a local process: its descriptor
// (SCM_RIGHTS) and a header, as one message over a Unix socket that keeps
// message boundaries (unixpacket). The process serves it from then on.
type Handoff struct {
	Path string `json:"path"`
}

// Kind is HandlerSpec.Kind.
func (*Handoff) Kind() string { return "handoff" }

// Datagram is HandlerSpec.Datagram.
func (*Handoff) Datagram() bool { return false }

// Validate is HandlerSpec.Validate.
func (h *Handoff) Validate() error {
	if _, err := parsePath(h.Path); err != nil {
		return &Violation{Field: "spec.handler.handoff.path", Message: err.Error()}
	}
	return nil
}

// New is HandlerSpec.New.
func (h *Handoff) New() Handler { return &handoffer{path: h.Path, fd: -1} }

// HandoffHeader is what the process is told of a connection, as JSON.
type HandoffHeader struct {
	Listener string `json:"listener"`
	Remote   string `json:"remote"` // tcp://192.0.2.7:4711; empty: a Unix client without a name
	Local    string `json:"local"`
	Cookie   string `json:"cookie"` // as in ss -e
}

// Connections wait for a process that is not there, or that does not take them
// as fast as they come: as many, and so long. It is asked for again so often.
const (
	maxHandoff   = 1024
	handoffWait  = 10 * time.Second
	handoffAgain = 50 * time.Millisecond
	handoffTurn  = 64 // in one turn of the loop
)

// Why a connection was closed here.
var (
	errHandedOff  = errors.New("handed off")
	errNoReceiver = errors.New("no process took the connection")
)

// A handoffer is the Handler of Handoff. Loop only.
type handoffer struct {
	path  string
	l     *Listener // nil: not attached
	fd    int       // to the process; -1: none
	want  mux.Events
	timer mux.Timer
	held  []heldConn // in order
	told  bool       // that nobody is there
}

// heldConn is a connection that waits for the process.
type heldConn struct {
	c     *conn
	until time.Duration
}

// Attach is Attacher.Attach. Who waits for the handler before waits on.
func (h *handoffer) Attach(l *Listener, before Handler) {
	h.l = l
	if old, ok := before.(*handoffer); ok {
		for _, w := range old.held {
			w.c.handler = h
		}
		h.held, old.held = old.held, nil
	}
	h.pass()
}

// Detach is Attacher.Detach.
func (h *handoffer) Detach() {
	h.l.set.loop.Disarm(&h.timer)
	h.disconnect()
	held := h.held
	h.held = nil
	for _, w := range held {
		w.c.close(errNoReceiver)
	}
}

// Open takes a connection on.
func (h *handoffer) Open(p Peer) (Handler, error) {
	c := p.(*conn)
	if len(h.held) >= maxHandoff {
		c.l.stats.reject(RejectedUpstream)
		c.reset(errNoReceiver)
		return h, nil
	}
	c.rest() // what the client says is for the process
	h.held = append(h.held, heldConn{c, c.opened + handoffWait})
	h.pass()
	return h, nil
}

// Handle is never called: nothing is read.
func (*handoffer) Handle(Peer, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Drain is Drainer.Drain: who waits is not at rest, and goes to the process.
func (*handoffer) Drain(Peer) bool { return false }

// pass gives away what it can in a turn.
func (h *handoffer) pass() {
	now := h.l.set.loop.Clock()
	for n := 0; len(h.held) > 0; n++ {
		if n == handoffTurn {
			h.l.set.loop.Arm(&h.timer, now, h) // the next turn
			return
		}
		w := h.held[0]
		var err error
		if w.c.fd >= 0 { // else it was closed meanwhile
			if err = h.connect(); err == nil {
				err = h.send(w.c)
			}
		}
		if err != nil && now < w.until {
			h.wait(err)
			return
		}
		h.held = h.held[1:] // before the close, which may end the listener
		if err != nil {
			w.c.l.stats.reject(RejectedUpstream)
			w.c.reset(errNoReceiver)
			continue
		}
		if h.told {
			h.told = false
			h.tell("")
		}
		w.c.flags &^= lingers // the option is the process's now
		w.c.close(errHandedOff)
	}
	h.held = nil
	h.watch(0)
}

// wait comes again when there is room, or after a while.
func (h *handoffer) wait(err error) {
	if errors.Is(err, unix.EAGAIN) && h.fd >= 0 {
		h.watch(mux.Writable)
	} else {
		h.disconnect()
		if !h.told {
			h.told = true
			h.l.set.log.Warn("nobody takes connections over; they wait", "listener", h.l.Name, "path", h.path, "error", err)
			h.tell("nobody takes connections over: " + err.Error())
		}
	}
	h.l.set.loop.Arm(&h.timer, h.l.set.loop.Clock()+handoffAgain, h)
}

// tell is that the process is gone, and why, or that it is back.
func (h *handoffer) tell(why string) {
	if tell := h.l.set.upstream; tell != nil {
		tell(h.l, UpstreamStatus{Address: "unixpacket://" + h.path, Healthy: why == ""}, why)
	}
}

// Ready is that the process has taken some, or has gone.
func (h *handoffer) Ready(mux.Events) { h.pass() }

// Expired tries again.
func (h *handoffer) Expired() { h.pass() }

// connect makes sure of a connection to the process. A Unix connect never waits
// on a non-blocking socket.
func (h *handoffer) connect() error {
	if h.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: h.path}); err != nil {
		sysClose(fd)
		return os.NewSyscallError("connect", err)
	}
	if err := h.l.set.loop.Add(fd, 0, h); err != nil {
		sysClose(fd)
		return err
	}
	h.fd, h.want = fd, 0
	h.l.set.used++
	return nil
}

func (h *handoffer) disconnect() {
	if h.fd < 0 {
		return
	}
	_ = h.l.set.loop.Remove(h.fd) // before the close, as always
	sysClose(h.fd)
	h.fd = -1
	h.l.set.released()
}

// watch makes the loop tell when the process takes more.
func (h *handoffer) watch(want mux.Events) {
	if h.fd < 0 {
		return
	}
	if err := change(h.l.set.loop, h.fd, &h.want, want); err != nil {
		h.l.set.log.Error("cannot wait for the process that takes connections over", "listener", h.l.Name, "error", err)
	}
}

// send passes one connection.
func (h *handoffer) send(c *conn) error {
	remote := Address{Network: c.network(), IP: c.peerName()}
	if !c.network().ip() {
		remote = c.socket().peer()
	}
	header, err := json.Marshal(HandoffHeader{
		Listener: h.l.Name, Remote: remote.String(), Local: c.socket().local().String(), Cookie: strconv.FormatUint(c.cookie(), 16),
	})
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(h.fd, header, unix.UnixRights(int(c.fd)), nil, unix.MSG_NOSIGNAL); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	return nil
}
