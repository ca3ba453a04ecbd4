package listeners

import (
	"github.com/sockmgr/sockmgr/mux"
)

// A check is one connection that is made to see whether an upstream takes it.
type check struct {
	u     *upstream
	set   *Set
	fd    int
	timer mux.Timer
	limit string // for the message
}

// check begins one, unless the last is not over yet.
func (f *forwarder) check(u *upstream, h *HealthCheck) {
	set := f.l.set
	if u.checking != nil || set.full() || u.network().Datagram() {
		return
	}
	a, ok := u.next()
	if !ok {
		return // its name is not resolved
	}
	fd, connected, err := set.dialTo(a)
	if err != nil {
		u.checked(connectText(err))
		return
	}
	timeout := orDefault(h.Timeout, defaultCheck)
	k := &check{u: u, set: set, fd: fd, limit: timeout.String()}
	if connected {
		sysClose(fd)
		u.checked("")
		return
	}
	if err := set.loop.Add(fd, mux.Writable, k); err != nil {
		sysClose(fd)
		return // it says nothing of the upstream
	}
	set.used++
	u.checking = k
	set.loop.Arm(&k.timer, set.loop.Clock()+timeout, k)
}

// Ready is that it connected, or was refused.
func (k *check) Ready(mux.Events) {
	why := ""
	if errno := sockError(k.fd); errno != 0 {
		why = "check: " + errnoText(errno)
	}
	k.end()
	k.u.checked(why)
}

// Expired is that neither happened in time.
func (k *check) Expired() {
	k.end()
	k.u.checked("check: timed out after " + k.limit)
}

func (k *check) end() {
	k.set.loop.Disarm(&k.timer)
	_ = k.set.loop.Remove(k.fd)
	sysClose(k.fd)
	k.set.released()
	k.u.checking = nil
}

func (u *upstream) cancelCheck(set *Set) {
	if u.checking != nil && u.checking.set == set {
		u.checking.end()
	}
}

// checked counts what came of a check; an empty why is success.
func (u *upstream) checked(why string) {
	if why == "" {
		u.failures = 0
		if u.successes++; u.down && u.successes >= u.rise() {
			u.turnTo(false, "")
		}
		return
	}
	u.lastError, u.successes = why, 0
	if u.failures++; !u.down && u.failures >= u.fall() {
		u.turnTo(true, why)
	}
}
