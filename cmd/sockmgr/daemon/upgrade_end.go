package daemon

import (
	"errors"
	"fmt"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// An upgrade and the end of the daemon may be asked for at once. Who comes first
// wins: until the new process is told to go on, an end gives up the upgrade; from
// then on the end is for the new process.

// errEnding is why an upgrade is given up, or not begun.
var errEnding = errors.New("the daemon is told to end")

func (u *upgrader) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.ending:
		return ending("no upgrade is begun")
	case u.over != nil:
		return &listeners.Fault{Reason: listeners.UpgradeRunning, Message: "an upgrade runs already", Fix: "wait until it is over: sockctl events -f"}
	}
	u.over = make(chan struct{})
	return nil
}

// started makes a process known that end has to kill.
func (u *upgrader) started(h *heir) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ending {
		return errEnding
	}
	u.heir = h
	return nil
}

// commit is the last moment in which the end of the daemon is this one's.
func (u *upgrader) commit() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ending {
		return errEnding
	}
	u.committed = true
	return nil
}

func (u *upgrader) finished(handed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.over)
	u.heir, u.committed = nil, false
	if !handed { // or there is nothing left to hand over
		u.over = nil
	}
}

// end has no upgrade begin any more, and gives up one that is under way. If it
// cannot, it returns who has taken over.
func (u *upgrader) end() *legacy {
	u.mu.Lock()
	u.ending = true
	if u.heir != nil && !u.committed {
		_ = u.heir.cmd.Process.Kill() // or it has ended
	}
	over := u.over
	u.mu.Unlock()
	if over == nil {
		return nil
	}
	<-over
	select {
	case l := <-u.done:
		return l
	default:
		return nil
	}
}

// failure is what there is to say of an upgrade that was not made, and of the
// daemon after it.
func (u *upgrader) failure(program string, err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ending {
		return ending("it is not upgraded to " + program)
	}
	goesOn := "goes on as before"
	if errors.Is(err, manager.ErrNotSaved) {
		goesOn = "goes on, without its store"
	}
	return &listeners.Fault{
		Reason: listeners.UpgradeFailed, Message: fmt.Sprintf("%s cannot take over, and the daemon %s: %v", program, goesOn, err),
		Fix: "what the program says of itself is in the daemon's log; try with --validate-only", Meta: map[string]string{"executable": program},
	}
}

func ending(what string) error {
	return &listeners.Fault{Reason: listeners.DaemonDraining, Message: "the daemon is told to end, and ends: " + what, Fix: "start the new program once it has ended"}
}
