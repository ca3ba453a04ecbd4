package listeners

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Keeper has copies of sockets in the hands of a process that outlives this
// one. Store and Remove never wait.
type Keeper interface {
	Store(name string, fd int)            // takes a copy of fd before it returns
	StoreIfRoom(name string, fd int) bool // of what there may be many of; it reports whether there is room
	Remove(name string)
	Wait(ctx context.Context) error // until what was asked before is done
}

// Kept is what a Keeper has of listeners: every socket from bind to close. What
// it gives back after the end of the process before is used instead of bind, so
// that the connections which wait in a queue wait on. The zero Kept, or nil,
// keeps nothing. Its methods may be called from any goroutine.
type Kept struct {
	ending atomic.Bool

	mu     sync.Mutex
	keeper Keeper                 // nil: none
	back   map[string][]*returned // what nobody has claimed, by listener; "": what is not ours
	conns  []returnedConn         // what came back of durable connections
	strays []returnedProgram      // programs that the process before had
}

// A returned is a socket that came back.
type returned struct {
	name     string // as it was stored
	fd       int
	listener string // that had it; empty: it is not one of ours, but systemd's
	sock     int    // SO_TYPE
	accepts  bool   // it listens
	local    unix.Sockaddr
	cookie   uint64 // the kernel counts up
	dev, ino uint64 // of its path
}

// A Returned is a descriptor that this process was started with.
type Returned struct {
	Name string
	FD   int
}

// NewKept returns a Kept. What of back is no socket of a listener is closed, and
// removed from the keeper; problems says what, and why.
func NewKept(keeper Keeper, back []Returned) (k *Kept, problems []error) {
	k = &Kept{keeper: keeper, back: map[string][]*returned{}}
	for _, b := range back {
		if c, ok := lookAtConn(b); ok {
			k.conns = append(k.conns, c)
			continue
		}
		if p, ok := lookAtProgram(b); ok {
			k.strays = append(k.strays, p)
			continue
		}
		r, err := lookAt(b)
		if err != nil {
			problems = append(problems, fmt.Errorf("descriptor %d, %q, which this process was started with, is closed: %w", b.FD, b.Name, err))
			k.remove(b.Name)
			sysClose(b.FD)
			continue
		}
		k.back[r.listener] = append(k.back[r.listener], r)
	}
	return k, problems
}

// keptName is what a socket is stored as: whose it is, and what proves, when it
// comes back, that it is that one and that its path is still its own. systemd
// takes no colon.
func keptName(listener string, s *socket) string {
	return fmt.Sprintf("%s@%x.%x.%x", listener, cookieOf(s.fd), s.dev, s.ino)
}

// parseKept is keptName the other way.
func parseKept(name string) (listener string, cookie, dev, ino uint64, ok bool) {
	listener, rest, found := strings.Cut(name, "@")
	parts := strings.Split(rest, ".")
	if !found || listener == "" || len(parts) != 3 {
		return "", 0, 0, 0, false
	}
	var numbers [3]uint64
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 64)
		if err != nil {
			return "", 0, 0, 0, false
		}
		numbers[i] = n
	}
	return listener, numbers[0], numbers[1], numbers[2], true
}

// store leaves a socket that listens with the keeper.
func (k *Kept) store(listener string, s *socket) {
	if k == nil {
		return
	}
	s.kept = k
	keeper := k.who()
	if keeper == nil || s.stored != "" || s.foreign {
		return
	}
	s.stored = keptName(listener, s)
	keeper.Store(s.stored, s.fd)
}

func (k *Kept) remove(name string) {
	if keeper := k.who(); keeper != nil {
		keeper.Remove(name)
	}
}

// who is the keeper; nil: there is none.
func (k *Kept) who() Keeper {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keeper
}

// Has reports whether somebody keeps copies.
func (k *Kept) Has() bool { return k.who() != nil }

// SetKeeper gives it another keeper, which has nothing yet: see StoreAgain.
func (k *Kept) SetKeeper(keeper Keeper) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keeper = keeper
}

// StoreAgain leaves the sockets of a listener with a keeper that has nothing yet.
// Loop only.
func (k *Kept) StoreAgain(l *Listener) {
	for _, e := range slices.Concat(l.endpoints, l.leaving) {
		if s := e.sock(); s.fd >= 0 {
			s.stored = ""
			k.store(l.Name, s)
		}
	}
	if x := l.passer(); x != nil {
		x.holder.storeAgain()
	}
}

// End leaves what is stored with the keeper when it is closed from now on: this
// process ends, and the next goes on with it.
func (k *Kept) End() {
	if k != nil {
		k.ending.Store(true)
	}
}

// Used reports whether there is a keeper.
func (k *Kept) Used() bool { return k.who() != nil }

// Wait returns when the keeper has what was stored, and what was let go is free.
func (k *Kept) Wait(ctx context.Context) error {
	if keeper := k.who(); keeper != nil {
		return keeper.Wait(ctx)
	}
	return nil
}

// take takes out of what came back from a listener, or from none, one of which f
// is so: of those that are bound where the oldest is, the youngest. One at another
// port is of a change that was not finished; one at the same was to take the place
// of the older.
func (k *Kept) take(listener string, f func(*returned) bool) *returned {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, of := range []string{listener, ""} {
		best := bestOf(k.back[of], f)
		if best < 0 {
			continue
		}
		r := k.back[of][best]
		if k.back[of] = slices.Delete(k.back[of], best, best+1); len(k.back[of]) == 0 {
			delete(k.back, of)
		}
		return r
	}
	return nil
}

// bestOf is the place of what take takes; -1: of none f is so.
func bestOf(some []*returned, f func(*returned) bool) int {
	oldest, best := -1, -1
	for i, r := range some {
		if f(r) && (oldest < 0 || r.cookie < some[oldest].cookie) {
			oldest = i
		}
	}
	for i, r := range some {
		if oldest >= 0 && f(r) && r.at() == some[oldest].at() && (best < 0 || r.cookie > some[best].cookie) {
			best = i
		}
	}
	return best
}

// claim takes out the sockets for the addresses of a listener, in their order;
// nil where there is none. What came back from one of them and cannot serve is
// let go, so that the address is free.
func (k *Kept) claim(listener string, listen []Address) []*returned {
	claimed := make([]*returned, len(listen))
	if k == nil {
		return claimed
	}
	for _, anyPort := range []bool{false, true} { // which is content with what is left
		for i, a := range listen {
			if anyPort == (a.Network.ip() && a.IP.Port() == 0) {
				claimed[i] = k.take(listener, func(r *returned) bool { return r.isFor(a, listener) && r.serves(a) })
			}
		}
	}
	let := false
	for _, a := range listen {
		useless := func(r *returned) bool { return r.listener != "" && r.isFor(a, listener) && !r.serves(a) }
		for r := k.take(listener, useless); r != nil; r = k.take(listener, useless) {
			k.let(r)
			let = true
		}
	}
	if let {
		ctx, cancel := context.WithTimeout(context.Background(), keeperPatience)
		defer cancel()
		_ = k.Wait(ctx) // bind says what is wrong
	}
	return claimed
}

// keeperPatience bounds what a change waits for the keeper.
const keeperPatience = 2 * time.Second

// twin takes out another socket of a listener at just that address: one that was
// being replaced by the other when the process before ended.
func (k *Kept) twin(listener string, s *socket) *returned {
	return k.take(listener, func(r *returned) bool {
		return r.listener != "" && r.accepts && r.sock == s.addr.Network.kind().sock && addressOf(s.addr.Network, r.local) == s.addr
	})
}

// has reports whether there is one for the address.
func (k *Kept) has(listener string, a Address) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	fits := func(r *returned) bool { return r.isFor(a, listener) && r.serves(a) }
	return slices.ContainsFunc(k.back[listener], fits) || slices.ContainsFunc(k.back[""], fits)
}

// giveBack undoes take.
func (k *Kept) giveBack(r *returned) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.back[r.listener] = append(k.back[r.listener], r)
}

// let closes a socket that is of no use, here and with the keeper.
func (k *Kept) let(r *returned) {
	if r.listener != "" {
		k.remove(r.name)
	}
	if r.sock != unix.SOCK_DGRAM {
		_ = unix.Shutdown(r.fd, unix.SHUT_RD) // clients are refused at once, whoever else has it
	}
	sysClose(r.fd)
}

// Drop closes what came back of listeners that do not want it, and says what it
// was. Sockets that are not ours stay for who asks for them.
func (k *Kept) Drop(wanted func(listener string) bool) (dropped []string) {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	var gone []*returned
	for listener, some := range k.back {
		if listener != "" && !wanted(listener) {
			gone = append(gone, some...)
			delete(k.back, listener)
		}
	}
	k.mu.Unlock()
	for _, r := range gone {
		k.let(r)
		dropped = append(dropped, r.String())
	}
	return dropped
}

// Close closes what nobody has claimed.
func (k *Kept) Close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, some := range k.back {
		for _, r := range some {
			sysClose(r.fd) // whoever keeps it still has it
		}
	}
	clear(k.back)
	for _, c := range k.conns {
		sysClose(c.fd)
	}
	k.conns = nil
	for _, p := range k.strays {
		sysClose(p.fd)
	}
	k.strays = nil
}
