package listeners

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A process is a program that was started, here or by a daemon before: the leader
// of a process group. Loop only.
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
	pidfd    int // readable once the leader has ended
	patience time.Duration
	began    time.Duration // on the loop's clock, as all times here
	lived    time.Duration // of the leader
	deadline time.Duration // when SIGKILL is sent; 0: not asked to end
	zombie   time.Duration // until when it is waited for that somebody else reaps the leader; 0: it is not
	killed   bool
	asked    bool   // by us, before it ended by itself
	child    bool   // of this process, which reaps it; else its parent does
	leashed  bool   // it ends with the thread of this process that forked it: see starter
	reaped   bool   // the leader, which is not waited for any more
	known    bool   // how it ended: status says
	kept     string // what the keeper has pidfd as; empty: it has not
	status   unix.WaitStatus
	timer    mux.Timer
	ended    func()
}

const (
	// groupPoll is how often is looked whether a group is empty that has no leader
	// any more: the kernel does not tell.
	groupPoll = 10 * time.Millisecond
	// zombieWait is how long who has to reap a leader has for that. Then how it
	// ended remains unknown.
	zombieWait = time.Second
)

// adopt takes a program on that was started here. ended is called once, later.
func (s *Set) adopt(r started, patience time.Duration, ended func()) (*process, error) {
	p := &process{set: s, pid: r.pid, pidfd: r.pidfd, patience: patience, began: s.loop.Clock(), child: true, leashed: r.kept == "", kept: r.kept, ended: ended}
	if err := s.loop.Add(r.pidfd, mux.Readable, p); err != nil {
		go func() { // it waits, and is over at once
			s.kept.destroy(r)
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
	_ = p.signal(unix.SIGTERM)
	_ = p.signal(unix.SIGCONT) // one that is stopped does not end
	p.deadline = p.set.loop.Clock() + p.patience
	p.set.loop.Arm(&p.timer, p.deadline, p)
}

// signal reaches the group. The descriptor names it whatever becomes of the
// number. Before Linux 6.9 it names the leader only; the number is surely its
// own until that is reaped, and after that as long as the group is there.
func (p *process) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if errors.Is(err, unix.EINVAL) {
		err = unix.Kill(-p.pid, sig)
	}
	return err
}

// isEmpty reports whether nobody is left of a group whose leader was reaped.
func (p *process) isEmpty() bool { return errors.Is(p.signal(0), unix.ESRCH) }

// Ready is that the leader has ended.
func (p *process) Ready(mux.Events) {
	if p.deadline == 0 {
		_ = p.signal(unix.SIGTERM) // what it has left behind
		_ = p.signal(unix.SIGCONT)
	}
	if !p.child {
		p.await()
		return
	}
	pid, err := unix.Wait4(p.pid, &p.status, unix.WNOHANG, nil)
	if err == nil && pid == 0 || errors.Is(err, unix.EINTR) {
		return // not yet
	}
	p.known = err == nil
	p.lost()
}

// await waits until the leader's parent has reaped it, for how it has ended is
// not told before.
func (p *process) await() {
	loop := p.set.loop
	var over bool
	if p.status, p.known, over = exitOf(p.pidfd); over {
		p.lost()
		return
	}
	if now := loop.Clock(); p.zombie == 0 {
		p.zombie = now + zombieWait
		_ = loop.Modify(p.pidfd, mux.HangUp) // it is readable for ever, and hangs up once it is reaped
	} else if now >= p.zombie {
		p.lost()
		return
	}
	loop.Arm(&p.timer, loop.Clock()+groupPoll, p) // select(2) does not tell of that
}

// lost is that there is no leader any more.
func (p *process) lost() {
	now := p.set.loop.Clock()
	p.lived, p.zombie, p.reaped = now-p.began, 0, true
	_ = p.set.loop.Remove(p.pidfd) // it stays open: it names the group
	if p.child {
		p.set.starter.ended()
	}
	if p.deadline == 0 {
		p.deadline = now + p.patience
	}
	p.Expired()
}

// Expired kills, or looks whether the group is empty.
func (p *process) Expired() {
	if p.zombie != 0 {
		p.await()
		return
	}
	loop := p.set.loop
	now := loop.Clock()
	due := now >= p.deadline
	switch {
	case p.reaped && (p.isEmpty() || p.killed && due):
		loop.Disarm(&p.timer)
		p.close()
		p.ended()
		return
	case due && !p.killed:
		p.killed = true
		_ = p.signal(unix.SIGKILL)
		p.deadline = now + time.Second // for the kernel to do it; the rest is out of our hands
	}
	if p.reaped {
		loop.Arm(&p.timer, now+groupPoll, p)
	} else if !p.killed {
		loop.Arm(&p.timer, p.deadline, p)
	}
}

// close lets go of a process that is not on the loop any more.
func (p *process) close() {
	if p.kept != "" {
		p.set.kept.remove(p.kept)
	}
	sysClose(p.pidfd)
	p.set.released()
}

// exitOf is how a process has ended that is not a child of this one, which the
// kernel tells since Linux 6.15. over: it was reaped.
func exitOf(pidfd int) (status unix.WaitStatus, known, over bool) {
	over = errors.Is(unix.PidfdSendSignal(pidfd, 0, nil, 0), unix.ESRCH)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT} // asked for afterwards: it is there before the process is not
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false, over
	}
	return unix.WaitStatus(info.Exit_code), true, true
}

// hasOwnInode reports whether descriptors of different processes are different
// files, as since Linux 6.9: who keeps copies tells them apart by that.
func hasOwnInode(pidfd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(pidfd, &st) == nil && st.Type == unix.PID_FS_MAGIC
}
