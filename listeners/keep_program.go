package listeners

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/mux"
)

// A returnedProgram is what came back of a program that the daemon before had
// started, and that outlived it.
type returnedProgram struct {
	name    string
	pid, fd int
}

// strayName is what the keeper has a program as. It is short: see fdstore.
func strayName(pid int) string { return "@p" + strconv.FormatInt(int64(pid), 36) }

// storeProgram leaves a copy of what a program is known by with the keeper; it
// returns the name, empty if there is no keeper, or no room.
func (k *Kept) storeProgram(pid, pidfd int) string {
	keeper := k.who()
	if keeper == nil || !hasOwnInode(pidfd) || !keeper.StoreIfRoom(strayName(pid), pidfd) {
		return ""
	}
	return strayName(pid)
}

// storeAgain is that for another keeper. A program that ends with this process is
// of no use to the next.
func (p *process) storeAgain() {
	if p != nil && !p.leashed {
		p.kept = p.set.kept.storeProgram(p.pid, p.pidfd)
	}
}

// lookAtProgram reports whether a descriptor is that of a process, under such a
// name.
func lookAtProgram(b Returned) (p returnedProgram, ok bool) {
	number, found := strings.CutPrefix(b.Name, "@p")
	pid, err := strconv.ParseInt(number, 36, 32)
	if !found || err != nil || pid <= 1 || !hasOwnInode(b.FD) {
		return p, false
	}
	return returnedProgram{b.Name, int(pid), b.FD}, true
}

// takeStrays takes them out.
func (k *Kept) takeStrays() (some []returnedProgram) {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	some, k.strays = k.strays, nil
	return some
}

// endStrays ends the programs of a daemon that was killed: their connections are
// lost, and so is all that would bound them.
func (s *Set) endStrays() {
	all := s.kept.takeStrays()
	for _, r := range all {
		p := &process{set: s, pid: r.pid, pidfd: r.fd, patience: defaultKill, began: s.loop.Clock(), kept: r.name}
		p.ended = func() { delete(s.strays, p) }
		s.used++
		if err := s.loop.Add(r.fd, mux.Readable, p); err != nil {
			s.log.Warn("a program of the daemon before is killed", "pid", r.pid, "error", err)
			_ = p.signal(unix.SIGKILL) // it has ended, or nothing helps
			p.close()
			continue
		}
		s.strays[p] = true
		p.end()
	}
	if len(all) > 0 {
		s.log.Info("programs of the daemon before are ended", "count", len(all))
	}
}

// closePrograms lets go of those that are there still. The loop has ended.
func (s *Set) closePrograms() {
	for p := range s.strays {
		_ = p.signal(unix.SIGKILL) // it was asked to end
		sysClose(p.pidfd)
	}
	for fd := range s.orphans {
		sysClose(fd)
	}
	clear(s.strays)
	clear(s.orphans)
}
