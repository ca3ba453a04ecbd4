package sockets

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/mux"
)

// A call is one socket call of one client: the shape of all that may have to
// wait. All but answer is for the loop only.
type call struct {
	words   string              // what is tried: "receive"
	side    side                // the line that it waits in
	try     func(*Socket) error // asks the kernel once
	undo    func(*Socket)       // gives back what try took; nil: nothing can be
	bytes   func() int          // that try took, if any
	forever bool                // wait, whatever the socket's timeout is

	s      *Socket
	timer  mux.Timer
	parked bool
	moved  bool       // try got on, though it is not done
	took   bool       // try is done
	gone   bool       // its client is
	answer chan error // of size 1: the loop never waits for a client
}

// errParked says that the answer comes later.
var errParked = errors.New("parked")

// again reports whether the kernel means "not yet".
func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EALREADY)
}

// run makes the call. When it is not nil, nothing was taken.
func (t *Table) run(ctx context.Context, who Caller, id string, c *call) error {
	c.answer = make(chan error, 1)
	answered := t.watch(who, c)
	err := t.wait(ctx, c.answer, func() error {
		s, err := t.find(who, id)
		if err != nil {
			return err
		}
		return s.begin(c)
	}, c.withdraw)
	answered(err)
	return err
}

// watch has a call withdrawn as soon as its client gives it up.
func (t *Table) watch(who Caller, c *call) (answered func(error)) {
	if c.undo == nil || who.Watch == nil {
		return func(error) {}
	}
	tell := who.Watch(func() { _ = t.loop.Post(c.withdraw) }) // fails when the loop has ended, and all is closed
	return func(err error) {
		n := -1
		if err == nil {
			n = 0
		}
		if err == nil && c.bytes != nil {
			n = c.bytes()
		}
		tell(n)
	}
}

// wait runs begin on the loop and, if that parks, waits for the answer. When ctx
// ends first, or before the answer could be given, withdraw runs on the loop.
func (t *Table) wait(ctx context.Context, answer <-chan error, begin func() error, withdraw func()) error {
	err := t.on(ctx, begin)
	if err == errParked { //nolint:errorlint // it is ours, and never wrapped
		select {
		case err = <-answer:
		case <-ctx.Done():
		}
	}
	if gone := ctx.Err(); gone != nil && (err == nil || err == errParked) { //nolint:errorlint // as above
		_ = t.on(context.WithoutCancel(ctx), func() error { // fails when all was closed
			withdraw()
			return nil
		})
		return gone
	}
	return err
}

// begin tries, and parks the call if it may wait. Who came first is served
// first.
func (s *Socket) begin(c *call) error {
	if c.gone {
		return context.Canceled
	}
	c.s = s
	err := error(unix.EAGAIN)
	line := s.lines[c.side]
	if len(line) == 0 {
		if err = c.try(s); err == nil {
			c.took = true
		}
	}
	switch {
	case !again(err), s.timeout == 0 && !c.forever:
		return refused(s.name(), c.words, err)
	case len(line) >= MaxParked:
		return &listeners.Fault{
			Reason: listeners.LimitReached, Message: fmt.Sprintf("%s: cannot %s: %d calls wait already", s.name(), c.words, MaxParked),
			Err: unix.ENOBUFS, Fix: "wait for one answer before the next call", Meta: map[string]string{"socket": s.name()},
		}
	}
	s.lines[c.side] = append(line, c)
	c.parked = true
	if s.timeout > 0 && !c.forever {
		s.t.loop.Arm(&c.timer, s.t.loop.Clock()+s.timeout, alarm(func() {
			c.finish(timedOut(s, c))
			s.update()
		}))
	}
	s.update()
	return errParked
}

// finish takes the call out of its line and answers.
func (c *call) finish(err error) {
	c.unpark()
	c.took = err == nil
	c.answer <- refused(c.s.name(), c.words, err)
}

func (c *call) unpark() {
	s := c.s
	s.lines[c.side] = slices.DeleteFunc(s.lines[c.side], func(other *call) bool { return other == c })
	if len(s.lines[c.side]) == 0 {
		s.lines[c.side] = nil
	}
	s.t.loop.Disarm(&c.timer)
	c.parked = false
	s.active = s.t.loop.Clock()
}

// withdraw is for a client that is gone: nothing shall have happened. Once is
// enough.
func (c *call) withdraw() {
	took := c.took
	c.gone, c.took = true, false
	switch {
	case c.parked:
		c.unpark()
		c.s.update()
	case took && c.undo != nil:
		c.undo(c.s)
	}
}

// revive serves calls that wait with what was given back, about which the kernel
// tells nothing.
func (s *Socket) revive() {
	for on := true; on && s.has(); {
		on = s.advance(reading)
	}
	s.look()
	s.update()
}

// has reports whether something was given back.
func (s *Socket) has() bool { return len(s.unread) > 0 || len(s.waiting) > 0 }
