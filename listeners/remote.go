package listeners

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// Remote leaves connections to clients elsewhere, who accept them with
// SocketService and use them as sockets.
type Remote struct {
	// AttachTimeout is how long a connection waits for a client; 0: as long as
	// the listener's other limits let it.
	AttachTimeout time.Duration `json:"attach_timeout,omitempty"`
	// MaxPending is how many wait here; more wait in the kernel. 0 is 128.
	MaxPending uint32 `json:"max_pending,omitempty"`
}

const defaultPending = 128

// Kind is HandlerSpec.Kind.
func (*Remote) Kind() string { return "remote" }

// Datagram is HandlerSpec.Datagram.
func (*Remote) Datagram() bool { return false }

// Validate is HandlerSpec.Validate.
func (r *Remote) Validate() error {
	var errs []error
	if r.AttachTimeout < 0 {
		errs = append(errs, &Violation{Field: "spec.handler.remote.attach_timeout", Message: "is negative"})
	}
	if r.MaxPending > 1<<20 {
		errs = append(errs, &Violation{Field: "spec.handler.remote.max_pending", Message: "must be at most 1048576"})
	}
	return errors.Join(errs...)
}

// New is HandlerSpec.New.
func (r *Remote) New() Handler { return &remoter{spec: r} }

// errNotTaken is why a connection was closed that no client took.
var errNotTaken = errors.New("no client took the connection")

// A remoter is the Handler of Remote. Loop only.
type remoter struct {
	spec    *Remote
	l       *Listener // nil: not attached
	pending []*Offered
	place   uint64 // of the next
	timer   mux.Timer
}

// Attach is Attacher.Attach. Who waits for the handler before waits on.
func (r *remoter) Attach(l *Listener, before Handler) {
	r.l = l
	if old, ok := before.(*remoter); ok {
		r.pending, r.place, old.pending = old.pending, old.place, nil
		for _, o := range r.pending {
			o.r, o.c.handler = r, o
		}
		r.arm()
	}
	r.tell(l)
}

// Detach is Attacher.Detach. What clients use already is theirs.
func (r *remoter) Detach() {
	l := r.l
	l.set.loop.Disarm(&r.timer)
	r.l = nil
	for len(r.pending) > 0 {
		r.pending[0].c.close(errNotTaken) // which takes it out
	}
	r.tell(l)
}

// tell has those look who wait for a connection of l.
func (*remoter) tell(l *Listener) {
	if l.set.offered != nil {
		l.set.offered(l)
	}
}

// Open lets a connection wait for a client. What it says waits in the kernel.
func (r *remoter) Open(p Peer) (Handler, error) {
	c := p.(*conn)
	r.place++
	o := &Offered{r: r, c: c, place: r.place, since: c.l.set.loop.Clock()}
	c.handler = o
	c.flags |= served
	c.rest()
	r.put(o)
	r.tell(c.l)
	return o, nil
}

// Handle is never called: all connections are served.
func (*remoter) Handle(Peer, []byte) (int, error) { return 0, errors.ErrUnsupported }

// put has a connection wait, in the order of places.
func (r *remoter) put(o *Offered) {
	at, _ := slices.BinarySearchFunc(r.pending, o.place, func(o *Offered, place uint64) int { return cmp.Compare(o.place, place) })
	r.pending = slices.Insert(r.pending, at, o)
	r.arm()
}

// arm sets the timer for who has waited longest.
func (r *remoter) arm() {
	if wait := r.spec.AttachTimeout; wait > 0 && r.l != nil && len(r.pending) > 0 {
		r.l.set.loop.Arm(&r.timer, r.pending[0].since+wait, r)
	}
}

// Expired closes who has waited too long, a bounded number a turn.
func (r *remoter) Expired() {
	now := r.l.set.loop.Clock()
	for n := 0; n < sweepCalls && r.l != nil && len(r.pending) > 0 && r.pending[0].since+r.spec.AttachTimeout <= now; n++ {
		c := r.pending[0].c
		c.l.stats.reject(RejectedUpstream)
		c.close(errNotTaken)
	}
	r.arm()
}

// isFull reports whether no more may wait here.
func (r *remoter) isFull() bool {
	most := r.spec.MaxPending
	if most == 0 {
		most = defaultPending
	}
	return len(r.pending) >= int(most)
}

// crowded reports whether as many connections wait for clients as may.
func (l *Listener) crowded() bool {
	r, ok := l.handler.(*remoter)
	return ok && r.isFull()
}

// A User uses a connection in place of the loop. Its methods are called on the
// loop.
type User interface {
	Ready(ev mux.Events)
	// Ended is that the connection is closed, by whomever and whatever.
	Ended(why error)
}

// Offered is a connection that waits for a client, and then is used by one. It
// stays its listener's: counted, limited, listed. Loop only.
type Offered struct {
	plainServer
	r     *remoter
	c     *conn
	place uint64
	since time.Duration
	user  User // nil: it waits
	early []byte
}

// Offers calls f on the loop when a connection waits for a client, and when no
// more will. It is to be called before the loop runs.
func (s *Set) Offers(f func(*Listener)) { s.offered = f }

// Take gives the connection that has waited longest to u; nil when none waits.
func (l *Listener) Take(u User) (*Offered, error) {
	r, ok := l.handler.(*remoter)
	if !ok || r.l == nil {
		why, fix := "is stopped", "sockctl start "+l.Name
		if !ok {
			fix = "make another listener: sockctl start NAME --listen ... --handler remote"
			why = "has the handler " + l.spec.Handler.Kind() + ", not remote"
		}
		return nil, &Fault{
			Reason: StateInvalid, Message: fmt.Sprintf("%s %s: nothing can be accepted from it", l.Name, why), Err: unix.EINVAL,
			Fix: fix, Meta: map[string]string{"listener": l.Name},
		}
	}
	if len(r.pending) == 0 {
		return nil, nil
	}
	o := r.pending[0]
	r.drop(o)
	o.user = u
	return o, nil
}

// Return has the connection wait again, before those that came later. Nothing
// was done to it.
func (o *Offered) Return() {
	o.user = nil
	if o.c.fd < 0 {
		return
	}
	if o.r.l == nil { // the handler is another now
		o.c.close(errNotTaken)
		return
	}
	o.c.rest()
	o.r.put(o)
	o.r.tell(o.c.l)
}

// drop takes a connection out of those that wait.
func (r *remoter) drop(o *Offered) {
	r.pending = slices.DeleteFunc(r.pending, func(other *Offered) bool { return other == o })
	if r.l != nil {
		r.l.unlimit()
		r.arm()
	}
}

// Listener is the name of whose connection it is.
func (o *Offered) Listener() string { return o.c.l.Name }

// Remote is who accept said that it is from.
func (o *Offered) Remote() Address {
	if a := (Address{Network: o.c.network(), IP: o.c.peerName()}); o.c.network().ip() {
		return a
	}
	return o.c.socket().peer()
}

// Descriptor is the connection as a socket.
func (o *Offered) Descriptor() Descriptor {
	s := o.c.socket()
	return Descriptor{FD: s.fd, Family: s.family, Network: s.addr.Network, Made: o.c.l.set.loop.Time(o.c.opened)}
}

// Early is what was read before it was offered, behind a PROXY header.
func (o *Offered) Early() []byte { return o.early }

// WaitFor says what to call User.Ready for.
func (o *Offered) WaitFor(want mux.Events) error {
	o.c.want = want
	return o.c.l.set.loop.Modify(int(o.c.fd), want)
}

// Received counts bytes; none is the end of the stream.
func (o *Offered) Received(n int) {
	if n == 0 {
		o.c.flags |= eof
		return
	}
	o.c.gotBytes(n)
}

// Sent counts bytes.
func (o *Offered) Sent(n int) { o.c.sentBytes(n) }

// Close is its client's close.
func (o *Offered) Close() {
	o.user = nil
	o.c.becauseDone()
	o.c.close(io.EOF)
}

func (o *Offered) take(p []byte, _ bool) { o.early = slices.Clone(p) }

func (o *Offered) ready(ev mux.Events) {
	if o.user != nil {
		o.user.Ready(ev)
	}
}

func (o *Offered) closed(why error) {
	if user := o.user; user != nil {
		o.user = nil
		user.Ended(why)
		return
	}
	o.r.drop(o)
}

func (o *Offered) tell(st *ConnStatus) {
	if o.user == nil {
		st.State = ConnConnecting
	}
}

func (o *Offered) held() (receive, send uint64) { return uint64(len(o.early)), 0 }
