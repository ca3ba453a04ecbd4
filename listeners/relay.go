package listeners

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// Why a relayed connection was closed.
var (
	errNoUpstream    = errors.New("no upstream took the connection")
	errUpstreamReset = errors.New("the upstream reset the connection")
)

// A relay is one connection and the one to its upstream that belongs to it.
// Loop only.
//
//	          choose           connected            both ends have finished
//	held ----------> connecting -------> relaying -------------------------> closed
//	  ^                 |  ^
//	  +-----------------+--+ refused, timed out: the next one
//	   none is left
type relay struct {
	plainServer
	f     *forwarder
	c     *conn     // the client's
	up    *upstream // nil: held
	tried []*upstream

	hop *hop   // nil: not looked for yet
	out outlet // of fd

	server string // that TLS asked for; empty: none, or nobody looked

	fd     int32 // to the upstream; -1: none
	isOpen bool  // and it is connected
	want   mux.Events
	place  int           // among those that are held
	until  time.Duration // that it is held at most; 0: it was not yet
	timer  mux.Timer     // of connecting, or of being held

	taker    chan taken // whose it is once it is connected; nil: relayed by the loop
	upstream Address    // once it was taken
	conn     net.Conn   // as its goroutine has it; nil: not yet
	failed   bool       // and the client's side was reset, or the like

	blame string // what the upstream is to be told to have done last; empty: nothing

	there flow // from the client to the upstream
	back  flow // from the upstream to the client
}

// begin connects to the next upstream, or finds that there is none.
func (r *relay) begin() {
	set := r.f.l.set
	if r.hop == nil {
		if err := r.follow(); err != nil {
			r.c.l.tellLoop(err)
			r.c.reset(err)
			return
		}
	}
	for {
		r.up = r.f.poolFor(r.server).choose(sourceOf(r.c), set.loop.Clock(), r.tried)
		if r.up == nil {
			r.none()
			return
		}
		if set.full() {
			r.c.l.stats.reject(RejectedLimit)
			r.c.reset(errDescriptors)
			return
		}
		r.tried = append(r.tried, r.up)
		a, _ := r.up.next() // it is usable
		fd, connected, err := set.dialTo(a)
		if err == nil {
			if err = set.loop.Add(fd, mux.Writable, r); err != nil {
				sysClose(fd)
			}
		}
		if err != nil {
			r.up.refused(connectText(err), set.loop.Clock())
			continue
		}
		set.used++
		r.fd, r.want = int32(fd), mux.Writable
		r.up.active++
		r.out = set.goesOut(fd, a, r.hop)
		if connected && len(set.workers) == 0 { // else the loop tells, when nobody uses the connection just now
			r.opened()
			return
		}
		set.loop.Arm(&r.timer, set.loop.Clock()+r.f.spec.connectTimeout(), r)
		return
	}
}

func connectText(err error) string {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return "connect: " + errnoText(errno)
	}
	return "connect: " + err.Error()
}

// none refuses the client, or holds it until an upstream is back.
func (r *relay) none() {
	loop := r.c.l.set.loop
	if r.until == 0 {
		r.until = loop.Clock() + r.c.l.tunables.UpstreamWait
	}
	if loop.Clock() < r.until && !r.timer.Set() {
		r.f.hold(r)
		loop.Arm(&r.timer, r.until, r)
		return
	}
	r.c.l.stats.reject(RejectedUpstream)
	r.c.reset(errNoUpstream)
}

// Expired is the end of the time for connecting, or for being held.
func (r *relay) Expired() {
	if r.up == nil {
		r.f.dropHeld(r)
		r.c.l.stats.reject(RejectedUpstream)
		r.c.reset(errNoUpstream)
		return
	}
	up := r.up
	r.leave()
	up.refused("connect: timed out after "+r.f.spec.connectTimeout().String(), r.c.l.set.loop.Clock())
	r.begin()
}

// leave lets the upstream go.
func (r *relay) leave() {
	if r.fd < 0 {
		return
	}
	set := r.c.l.set
	set.loop.Disarm(&r.timer)
	_ = set.loop.Remove(int(r.fd)) // before the close, as always
	if d := r.c.durable(); d != nil && d.joined {
		d.part(int(r.fd))
	}
	sysClose(int(r.fd))
	r.fd, r.isOpen = -1, false
	if r.c.l.whole == nil { // else the first loop does it: see depart
		r.checkOut(set)
	}
}

// checkOut takes it out of the books of the first loop.
func (r *relay) checkOut(set *Set) {
	set.closedOut(r.out, r.hop)
	r.up.active--
	if r.blame != "" {
		r.up.lastError = r.blame
	}
	set.released()
}

// Ready is the upstream's side.
func (r *relay) Ready(ev mux.Events) {
	if !r.isOpen {
		if errno := sockError(int(r.fd)); errno != 0 {
			up := r.up
			r.leave()
			up.refused("connect: "+errnoText(errno), r.c.l.set.loop.Clock())
			r.begin()
			return
		}
		r.opened()
		return
	}
	if r.want == mux.HangUp {
		r.hungUp(&r.back, int(r.fd))
		return
	}
	r.move(&r.back, &r.there, int(r.fd), int(r.c.fd), ev)
}

// ready is the client's side. Before there is an upstream it is off the loop.
func (r *relay) ready(ev mux.Events) {
	if !r.isOpen {
		return // an event that was on its way
	}
	if r.c.want == mux.HangUp {
		r.hungUp(&r.there, int(r.c.fd))
		return
	}
	r.move(&r.there, &r.back, int(r.c.fd), int(r.fd), ev)
}

// hungUp is that a side is gone altogether, which is all that is waited for
// while it has nothing to say and the other side nothing for it. What it said
// is still passed on, but not for a client that gave up.
func (r *relay) hungUp(out *flow, fd int) {
	errno := sockError(fd)
	if errno == unix.ECONNRESET && out == &r.there {
		r.fail(fd, os.NewSyscallError("read", errno))
		return
	}
	if errno == 0 {
		errno = unix.EPIPE
	}
	r.other(out).refuse(errno)
	r.settle()
}

// opened begins to relay.
func (r *relay) opened() {
	r.isOpen = true
	r.tried = nil
	r.up.took()
	r.c.l.set.loop.Disarm(&r.timer)
	var header []byte
	if v := r.f.spec.SendProxy; v > 0 {
		header = proxyHeader(r.c, byte(v))
	}
	if r.taker != nil {
		r.handOver(header)
		return
	}
	if r.c.durable() != nil {
		r.join(header)
	}
	r.there.rest = append(header, r.there.rest...)
	if r.c.l.spreads == onceOpen && r.c.leave() {
		return // another loop goes on
	}
	r.goOn()
}

// goOn relays what there is, and waits for more.
func (r *relay) goOn() {
	if r.there.pending() || r.there.eof {
		r.there.flush(r, int(r.c.fd), int(r.fd))
	}
	r.settle()
}

// move goes on with one side: what it sends goes to the other, and what the
// other has sent goes to it. out is what this side sends.
func (r *relay) move(out, in *flow, from, to int, ev mux.Events) {
	if ev&mux.Writable != 0 && in.pending() {
		in.flush(r, to, from)
	}
	if ev&mux.Readable != 0 && r.c.fd >= 0 && out.wantsInput() {
		out.pump(r, from, to)
	}
	if r.c.fd >= 0 {
		r.settle()
	}
}

// settle ends what is over, and decides what to wait for on both sides.
func (r *relay) settle() {
	if r.there.shut && r.back.shut {
		r.c.close(io.EOF)
		return
	}
	if r.back.lost == unix.ECONNRESET && r.there.pending() { // as hungUp, that a write was told
		r.c.close(os.NewSyscallError("write", r.back.lost))
		return
	}
	for _, f := range [...]*flow{&r.there, &r.back} {
		if !isOver(f.lost) {
			r.c.close(os.NewSyscallError("write", f.lost))
			return
		}
	}
	if r.c.rare != nil || r.there.pending() || r.back.pending() {
		r.noteFlows()
	}
	loop := r.c.l.set.loop
	err := r.c.watch(r.c.unmasked(wants(&r.there, &r.back)))
	if err == nil {
		err = change(loop, int(r.fd), &r.want, wants(&r.back, &r.there))
	}
	if err != nil {
		r.c.close(err)
	}
}

// other is the flow the other way.
func (r *relay) other(f *flow) *flow {
	if f == &r.there {
		return &r.back
	}
	return &r.there
}

// wants is what a side waits for: out is what it sends. One that shall neither
// be read nor written may still go away.
func wants(out, in *flow) (ev mux.Events) {
	if out.wantsInput() {
		ev |= mux.Readable
	}
	if in.pending() {
		ev |= mux.Writable
	}
	if ev == 0 && !in.shut {
		ev = mux.HangUp
	}
	return ev
}

// change makes the loop wait for something else.
func change(loop *mux.Loop, fd int, have *mux.Events, want mux.Events) error {
	if *have == want {
		return nil
	}
	*have = want
	return loop.Modify(fd, want)
}

// relay is the relay that serves the connection; nil: none does.
func (c *conn) relay() *relay {
	r, _ := c.handler.(*relay)
	return r
}

// recv reads from one side.
func (r *relay) recv(from int, p []byte) (int, unix.Errno) {
	if from == int(r.c.fd) {
		return r.c.recv(p)
	}
	return sysRecv(from, p, 0)
}

// resume waits for what there is to wait for, if there is an upstream.
func (r *relay) resume() {
	if r.isOpen {
		r.settle()
	}
}

// fail ends both sides because reading from one has failed. RST is carried over.
func (r *relay) fail(fd int, err error) {
	if fd != int(r.c.fd) {
		if errno, ok := errors.AsType[unix.Errno](err); ok {
			r.blame = errnoText(errno)
		}
		r.c.reset(errUpstreamReset)
		return
	}
	r.c.close(err)
}

// closed is called when the client's side is about to be closed.
func (r *relay) closed(why error) {
	r.c.l.set.loop.Disarm(&r.timer)
	if r.up == nil {
		r.f.dropHeld(r)
	}
	_, r.failed = errors.AsType[unix.Errno](why)
	r.failed = r.failed || isUnread(why)
	if r.conn != nil {
		r.stop(r.failed)
	}
	if r.failed && r.fd >= 0 {
		_ = unix.SetsockoptLinger(int(r.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // RST is carried over
	}
	r.leave()
	r.there.drop()
	r.back.drop()
}

// take has what was read before the relay began.
func (r *relay) take(p []byte, eof bool) {
	if len(p) == 0 && !eof || r.c.fd < 0 {
		return
	}
	r.there.rest = append(r.there.rest, p...)
	r.there.eof = eof
	if r.isOpen {
		r.there.flush(r, int(r.c.fd), int(r.fd))
		r.settle()
	}
}
