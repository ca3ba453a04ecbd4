package sockets

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// A socket is for who made it, and for admins. All may look.
func TestOwner(t *testing.T) {
	b := newBench(t, "epoll", 0)
	id := b.id(me, listeners.UDP)
	for what, err := range map[string]error{
		"bind":  second(b.Bind(b.ctx, you, id, "udp://127.0.0.1:0")),
		"send":  second(b.SendTo(b.ctx, you, id, nil, "udp://127.0.0.1:9")),
		"poll":  second(b.Poll(b.ctx, you, Lists{Readable: []string{id}}, 0)),
		"close": b.CloseSocket(b.ctx, you, id),
	} {
		if !errors.Is(err, listeners.RoleMissing) || !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if st, err := b.Get(b.ctx, id, false); err != nil || st.Owner != me.Name {
		t.Error(st, err)
	}
	if _, err := b.Bind(b.ctx, root, id, "udp://127.0.0.1:0"); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// One client has so many sockets and no more, those that it accepts included.
func TestOwned(t *testing.T) {
	b := newBench(t, "epoll", 3)
	server, uri := b.server()
	x := b.id(me, listeners.TCP)
	if _, err := b.Connect(b.ctx, me, x, uri); err != nil {
		t.Fatal(err)
	}
	third := b.id(me, listeners.TCP)
	if _, err := b.Create(b.ctx, me, Spec{Network: listeners.TCP}); !errors.Is(err, listeners.LimitReached) || !errors.Is(err, unix.EMFILE) {
		t.Error(err)
	}
	if _, err := b.Accept(b.ctx, me, server); !errors.Is(err, unix.EMFILE) {
		t.Error(err)
	}
	b.id(you, listeners.TCP) // others have their own
	if err := b.CloseSocket(b.ctx, me, third); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(b.ctx, me, server); err != nil {
		t.Error(err)
	}
}

// What was taken for clients who were gone comes again, in the order in which it
// came, whichever went first.
func TestGivenBack(t *testing.T) {
	b := newBench(t, "epoll", 0)
	x, y := b.pair()
	if _, err := b.Send(b.ctx, me, x, []byte("abcdef"), true); err != nil {
		t.Fatal(err)
	}
	var got [3]taken[Datagram]
	for i := range got {
		var err error
		if got[i], err = b.recv(b.ctx, me, y, 2, false, false); err != nil {
			t.Fatal(err)
		}
	}
	waits := make(chan string, 1)
	go func() {
		p, _ := b.Recv(b.ctx, me, y, 1, false)
		waits <- string(p)
	}()
	eventually(t, func() (parked bool) {
		b.loopDo(func() { parked = b.lookup(y).busy() })
		return parked
	})
	b.loopDo(func() {
		s := b.lookup(y)
		s.unread.put(got[2])
		s.unread.put(got[0])
		s.giveBack(got[1])
	})
	text := <-waits
	for len(text) < 6 {
		p, err := b.Recv(b.ctx, me, y, 100, false)
		if err != nil {
			t.Fatal(err)
		}
		text += string(p)
	}
	if text != "abcdef" {
		t.Errorf("%q", text)
	}
}

// So do parts of what came again.
func TestGivenBackAgain(t *testing.T) {
	b := newBench(t, "epoll", 0)
	x, y := b.pair()
	if _, err := b.Send(b.ctx, me, x, []byte("abcdef"), true); err != nil {
		t.Fatal(err)
	}
	text := ""
	b.loopDo(func() {
		s := b.lookup(y)
		all, err := s.next(6, false)
		if err != nil || len(all.what.Payload) != 6 {
			t.Error(all, err)
		}
		s.giveBack(all)
		var got [2]taken[Datagram]
		for i := range got {
			got[i], _ = s.next(2, false)
		}
		s.giveBack(got[0])
		s.giveBack(got[1])
		for s.has() {
			one, _ := s.next(6, false)
			text += string(one.what.Payload)
		}
	})
	if text != "abcdef" {
		t.Errorf("%q", text)
	}
}

// A connection accepted for a client who was gone is the next one's, before
// those that came later; poll knows of it, and it goes with the listening socket.
func TestTakenBack(t *testing.T) {
	b := newBench(t, "epoll", 0)
	server, uri := b.server()
	var clients []string
	connect := func() {
		id := b.id(me, listeners.TCP)
		if _, err := b.Connect(b.ctx, me, id, uri); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, id)
	}
	connect()
	var lost taken[*Socket]
	b.loopDo(func() {
		var err error
		if lost, err = b.lookup(server).accept(me); err != nil {
			t.Error(err)
			return
		}
		b.lookup(server).takeBack(lost)
	})
	if ready, err := b.Poll(b.ctx, me, Lists{Readable: []string{server}}, 0); err != nil || len(ready.Readable) != 1 {
		t.Error(ready, err)
	}
	if _, err := b.Get(b.ctx, name(Status{SocketStatus: listeners.SocketStatus{Cookie: lost.what.id}}), false); !errors.Is(err, listeners.SocketNotFound) {
		t.Errorf("it is nobody's, and there: %v", err)
	}
	connect()
	for _, client := range clients {
		st, err := b.Accept(b.ctx, me, server)
		if err != nil {
			t.Fatal(err)
		}
		if at, err := b.Get(b.ctx, client, false); err != nil || at.Local != st.Remote {
			t.Errorf("accepted from %v, want %v", st.Remote, at.Local)
		}
	}
	connect()
	b.loopDo(func() {
		if got, err := b.lookup(server).accept(me); err == nil {
			b.lookup(server).takeBack(got)
		}
	})
	if err := b.CloseSocket(b.ctx, me, server); err != nil {
		t.Error(err)
	}
}

// Calls are served in the order in which they came, and are told when the socket
// is closed. There is a bound on them.
func TestLine(t *testing.T) {
	eachPoller(t, func(b *bench) {
		x, y := b.pair()
		got := make([]chan string, 5)
		for i := range got {
			got[i] = make(chan string, 1)
			go func() {
				p, err := b.Recv(b.ctx, me, y, 1, false)
				got[i] <- fmt.Sprint(string(p), " ", err)
			}()
			eventually(b.t, func() (parked bool) {
				b.loopDo(func() { parked = len(b.lookup(y).lines[reading]) == i+1 })
				return parked
			})
		}
		if _, err := b.Send(b.ctx, me, x, []byte("0123"), true); err != nil {
			b.t.Fatal(err)
		}
		for i := range 4 {
			if text := <-got[i]; text != fmt.Sprint(i, " ", nil) {
				b.t.Errorf("%d: %s", i, text)
			}
		}
		errs := make(chan error, MaxParked)
		for range MaxParked {
			go func() {
				_, err := b.Recv(b.ctx, me, y, 1, false)
				errs <- err
			}()
		}
		if err := <-errs; !errors.Is(err, unix.ENOBUFS) {
			b.t.Error(err)
		}
		if err := b.CloseSocket(b.ctx, me, y); err != nil {
			b.t.Error(err)
		}
		<-got[4]
		for range MaxParked - 1 {
			if err := <-errs; !errors.Is(err, unix.EBADF) {
				b.t.Error(err)
			}
		}
	})
}

// A thousand clients that go away at any point leave nothing behind, and take
// nothing with them.
func TestVanishingClients(t *testing.T) {
	eachPoller(t, func(b *bench) {
		server, uri := b.server()
		var clients sync.WaitGroup
		limit := make(chan struct{}, 50)
		for i := range 1000 {
			clients.Go(func() {
				limit <- struct{}{}
				defer func() { <-limit }()
				who := Caller{Name: fmt.Sprint("uid:", i), Admin: true}
				ctx, cancel := context.WithTimeout(b.ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
				defer cancel()
				st, err := b.Create(ctx, who, Spec{Network: listeners.TCP, Idle: 20 * time.Millisecond})
				if err != nil {
					return
				}
				if _, err := b.Connect(ctx, who, name(st), uri); err != nil {
					return
				}
				_, _ = b.Send(ctx, who, name(st), make([]byte, 1000), true)
				conn, err := b.Accept(ctx, who, server)
				if err != nil {
					return
				}
				_, _ = b.Recv(ctx, who, name(conn), 0, false)
				_, _ = b.Poll(ctx, who, Lists{Readable: []string{name(st)}, Exceptional: []string{name(conn)}}, Forever)
			})
		}
		clients.Wait()
		b.loopDo(func() { b.lookup(server).idle = time.Millisecond }) // what it accepted has that too
		b.loopDo(func() {
			for _, s := range b.byID {
				s.idle = 20 * time.Millisecond
				s.t.loop.Arm(&s.idleTimer, s.t.loop.Clock()+s.idle, alarm(s.idled))
			}
		})
		eventually(b.t, func() (none bool) {
			b.loopDo(func() { none = len(b.byID) == 0 && len(b.count) == 0 })
			return none
		})
		b.loopDo(func() {
			if st := b.loop.Stats(); st.Descriptors != 0 || st.Timers != 0 {
				b.t.Errorf("%d descriptors and %d timers are left", st.Descriptors, st.Timers)
			}
		})
	})
}

// Out-of-band data is exceptional, with every poller, and so is an error.
func TestUrgent(t *testing.T) {
	eachPoller(t, func(b *bench) {
		x, y := b.pair()
		got := make(chan Lists, 1)
		go func() {
			ready, err := b.Poll(b.ctx, me, Lists{Exceptional: []string{x, y}}, Forever)
			if err != nil {
				b.t.Error(err)
			}
			got <- ready
		}()
		eventually(b.t, func() (parked bool) {
			b.loopDo(func() { parked = b.lookup(y).busy() })
			return parked
		})
		b.loopDo(func() {
			if err := unix.Sendto(b.lookup(x).FD, []byte("!"), unix.MSG_OOB, nil); err != nil {
				b.t.Error(err)
			}
		})
		if ready := <-got; !slices.Equal(ready.Exceptional, []string{y}) {
			b.t.Errorf("%v", ready)
		}
		v, w := b.pair()
		go func() {
			ready, err := b.Poll(b.ctx, me, Lists{Exceptional: []string{v}}, Forever)
			if err != nil {
				b.t.Error(err)
			}
			got <- ready
		}()
		eventually(b.t, func() (parked bool) {
			b.loopDo(func() { parked = b.lookup(v).busy() })
			return parked
		})
		b.loopDo(func() { // RST
			if err := unix.SetsockoptLinger(b.lookup(w).FD, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				b.t.Error(err)
			}
		})
		if err := b.CloseSocket(b.ctx, me, w); err != nil {
			b.t.Error(err)
		}
		if ready := <-got; !slices.Equal(ready.Exceptional, []string{v}) {
			b.t.Errorf("after RST: %v", ready)
		}
	})
}

// A descriptor that is ready in a way nobody waits for does not keep the loop
// busy: a socket that is not connected is hung up from the beginning.
func TestHangUpRests(t *testing.T) {
	eachPoller(t, func(b *bench) {
		id := b.id(me, listeners.TCP)
		var before, after uint64
		b.loopDo(func() { before = b.loop.Stats().Turns })
		ready, err := b.Poll(b.ctx, me, Lists{Exceptional: []string{id}}, 100*time.Millisecond)
		if err != nil || !slices.Equal(ready.Exceptional, nil) {
			b.t.Error(ready, err)
		}
		b.loopDo(func() { after = b.loop.Stats().Turns })
		if after-before > 60 {
			b.t.Errorf("%d turns in 100 ms", after-before)
		}
	})
}
