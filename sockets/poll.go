package sockets

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// MaxPolled is how many sockets one list of Poll may have.
const MaxPolled = 1024

// Lists are the three lists of select(2): what to wait for, or what is ready.
type Lists struct {
	Readable, Writable, Exceptional []string
}

// A poll is a call of Poll that waits. Loop only, but for answer.
type poll struct {
	t      *Table
	lists  [3][]*Socket
	asked  []unix.PollFd // one for each socket
	at     map[*Socket]int
	ready  [3][]bool // as lists
	timer  mux.Timer
	parked bool
	answer chan error
}

// What of poll(2) makes a descriptor ready in each list, as select(2) has it;
// an error counts as exceptional too.
var readyMasks = [3]int16{
	unix.POLLIN | unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR,
	unix.POLLOUT | unix.POLLERR,
	unix.POLLPRI | unix.POLLERR,
}

var askMasks = [3]int16{unix.POLLIN, unix.POLLOUT, unix.POLLPRI}

var pollWants = [3]mux.Events{mux.Readable, mux.Writable, mux.HangUp | mux.Urgent}

// Poll is select(2): it returns those of each list that are ready, in the order
// of the list, as soon as there are any. When the timeout has passed all lists
// are empty; 0 only looks, Forever waits until ctx ends.
func (t *Table) Poll(ctx context.Context, who Caller, want Lists, timeout time.Duration) (ready Lists, err error) {
	names := [3][]string{want.Readable, want.Writable, want.Exceptional}
	for i, field := range [3]string{"readable", "writable", "exceptional"} {
		if len(names[i]) > MaxPolled {
			return ready, invalid(field, fmt.Sprintf("has %d sockets; it takes at most %d", len(names[i]), MaxPolled), unix.EINVAL)
		}
	}
	p := &poll{t: t, at: map[*Socket]int{}, answer: make(chan error, 1)}
	err = t.wait(ctx, p.answer, func() error { return p.begin(who, names, timeout) }, p.withdraw)
	if err != nil {
		return ready, err
	}
	for i, out := range [3]*[]string{&ready.Readable, &ready.Writable, &ready.Exceptional} {
		for j, yes := range p.ready[i] {
			if yes {
				*out = append(*out, names[i][j])
			}
		}
	}
	return ready, nil
}

func (p *poll) begin(who Caller, names [3][]string, timeout time.Duration) error {
	for i, list := range names {
		for _, name := range list {
			s, err := p.t.find(who, name)
			if err != nil {
				return err
			}
			at, there := p.at[s]
			if !there {
				at = len(p.asked)
				p.at[s] = at
				p.asked = append(p.asked, unix.PollFd{Fd: int32(s.FD)})
			}
			p.asked[at].Events |= askMasks[i]
			p.lists[i] = append(p.lists[i], s)
		}
	}
	if p.look() || timeout == 0 {
		return nil
	}
	for s := range p.at {
		if len(s.polls) >= MaxParked {
			return refused(s.name(), fmt.Sprintf("poll: %d calls wait already", MaxParked), unix.ENOBUFS)
		}
	}
	p.parked = true
	for s := range p.at {
		s.polls = append(s.polls, p)
		s.update()
	}
	if timeout > 0 {
		p.t.loop.Arm(&p.timer, p.t.loop.Clock()+timeout, alarm(func() { p.finish(nil) }))
	}
	return errParked
}

// look asks the kernel, without waiting, and reports whether something is ready.
func (p *poll) look() bool {
	if _, err := unix.Poll(p.asked, 0); err != nil { // EINTR, ENOMEM: the next turn looks again
		return false
	}
	some := false
	for i, list := range p.lists {
		p.ready[i] = make([]bool, len(list))
		for j, s := range list {
			yes := p.asked[p.at[s]].Revents&readyMasks[i] != 0 || i == 0 && s.has()
			p.ready[i][j] = yes
			some = some || yes
		}
	}
	return some
}

// interest is what p waits for on s.
func (p *poll) interest(s *Socket) (want mux.Events) {
	for i, mask := range askMasks {
		if p.asked[p.at[s]].Events&mask != 0 {
			want |= pollWants[i]
		}
	}
	if want&mux.HangUp != 0 && p.t.loop.Poller() == "select" {
		want |= mux.Readable // which is all that select(2) makes of an error
	}
	return want
}

// finish answers.
func (p *poll) finish(err error) {
	p.withdraw()
	p.answer <- err
}

// withdraw takes p off its sockets.
func (p *poll) withdraw() {
	if !p.parked {
		return
	}
	p.parked = false
	p.t.loop.Disarm(&p.timer)
	for s := range p.at {
		s.polls = slices.DeleteFunc(s.polls, func(other *poll) bool { return other == p })
		s.active = p.t.loop.Clock()
		s.update()
	}
}

// look lets every poll on the socket look, and reports whether one is done.
func (s *Socket) look() (done bool) {
	for _, p := range slices.Clone(s.polls) {
		if p.look() {
			p.finish(nil)
			done = true
		}
	}
	return done
}
