package listeners

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A process is a program that was started: the leader of a process group. Loop
// only.
//
//	             end                kill_timeout
//	running -----------> SIGTERM ------------------> SIGKILL
//	   |                    |                           |
//	   +--------------------+---------------------------+
//	   v
//	leader has ended: others of its group get SIGTERM, and SIGKILL when
//	   |              kill_timeout has passed
//	   v
//	ended: nothing of the group is left
type process struct {
	set      *Set
	pid      int
	pidfd    int // readable once the leader has ended; -1: it was reaped
	patience time.Duration
	began    time.Duration // on the loop's clock, as deadline
	lived    time.Duration // of the leader
	deadline time.Duration // when SIGKILL is sent; 0: not asked to end
	killed   bool
	asked    bool // by us, before it ended by itself
	status   unix.WaitStatus
	timer    mux.Timer
	ended    func()
}

// groupPoll is how often is looked whether a group is empty that has no leader
// any more: the kernel does not tell.
const groupPoll = 10 * time.Millisecond

// adopt takes a program on. ended is called once, later.
func (s *Set) adopt(r started, patience time.Duration, ended func()) (*process, error) {
	p := &process{set: s, pid: r.pid, pidfd: r.pidfd, patience: patience, began: s.loop.Clock(), ended: ended}
	if err := s.loop.Add(r.pidfd, mux.Readable, p); err != nil {
		go func() { // it waits, and is over at once
			destroy(r)
			s.starter.ended()
		}()
		return nil, err
	}
	s.used++
	return p, nil
}

// end asks the whole group to end, and makes it if that takes too long.
func (p *process) end() {
	if p.deadline != 0 {
		return
	}
	p.asked = true
	p.signal(unix.SIGTERM)
	p.signal(unix.SIGCONT) // one that is stopped does not end
	p.deadline = p.set.loop.Clock() + p.patience
	p.set.loop.Arm(&p.timer, p.deadline, p)
}

// signal reaches the group. While its leader is not reaped the number is surely
// its own; after that no process has it as its pid as long as the group is there.
func (p *process) signal(sig unix.Signal) { _ = unix.Kill(-p.pid, sig) }

// isEmpty reports whether nobody is left of a group whose leader was reaped.
func (p *process) isEmpty() bool {
	if errors.Is(unix.Kill(-p.pid, 0), unix.ESRCH) {
		return true
	}
	return !errors.Is(unix.Kill(p.pid, 0), unix.ESRCH) // the number is in use again, by others
}

// Ready reaps the leader.
func (p *process) Ready(mux.Events) {
	if p.deadline == 0 {
		p.signal(unix.SIGTERM) // what it has left behind, while the number is its own for sure
		p.signal(unix.SIGCONT)
	}
	pid, err := unix.Wait4(p.pid, &p.status, unix.WNOHANG, nil)
	if err == nil && pid == 0 || errors.Is(err, unix.EINTR) {
		return // not yet
	}
	now := p.set.loop.Clock()
	p.lived = now - p.began
	_ = p.set.loop.Remove(p.pidfd) // before the close, as always
	sysClose(p.pidfd)
	p.pidfd = -1
	p.set.released()
	p.set.starter.ended()
	if p.deadline == 0 {
		p.deadline = now + p.patience
	}
	p.Expired()
}

// Expired kills, or looks whether the group is empty.
func (p *process) Expired() {
	loop := p.set.loop
	now := loop.Clock()
	due := now >= p.deadline
	switch {
	case p.pidfd < 0 && (p.isEmpty() || p.killed && due):
		loop.Disarm(&p.timer)
		p.ended()
		return
	case due && !p.killed:
		p.killed = true
		p.signal(unix.SIGKILL)
		p.deadline = now + time.Second // for the kernel to do it; the rest is out of our hands
	}
	if p.pidfd < 0 {
		loop.Arm(&p.timer, now+groupPoll, p)
	} else if !p.killed {
		loop.Arm(&p.timer, p.deadline, p)
	}
}
