package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/internal/fdstore"
	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// A keeper is the service manager, systemd or `sockmgr supervise`, as the daemon
// sees it. There may be none.
type keeper struct {
	log      hclog.Logger
	kept     *listeners.Kept
	back     []fdstore.Returned      // what came back, until the listeners get what is left
	reserved atomic.Pointer[[]place] // what isManager knows

	mu     sync.Mutex
	socket string
	client *fdstore.Client // nil: there is none
	states []string        // what it was told
	own    []ownSocket     // none once another process has them
	left   []place         // of those that it has

	unlinks bool // paths of own go with it; set once, before anything is served
}

// newKeeper gives the service manager a voice.
func newKeeper(socket string, back []fdstore.Returned, longNames bool, log hclog.Logger) *keeper {
	k := &keeper{log: log, socket: socket, back: back}
	k.reserve()
	if socket == "" {
		return k
	}
	k.client = fdstore.Dial(socket, k.failed)
	if !longNames {
		names := make([]string, 0, len(back))
		for _, b := range back {
			names = append(names, b.Name)
		}
		k.client.BoundNames(names)
	}
	return k
}

// rest gives the listeners what came back and is not the daemon's own.
func (k *keeper) rest() *listeners.Kept {
	var store listeners.Keeper // nil, unless there is one
	if k.client != nil {
		store = k.client
	}
	returned := make([]listeners.Returned, 0, len(k.back))
	for _, b := range k.back {
		returned = append(returned, listeners.Returned(b))
	}
	var problems []error
	k.kept, problems = listeners.NewKept(store, returned)
	for _, err := range problems {
		k.log.Warn("a descriptor that came back is of no use", "error", err)
	}
	if len(k.back) > 0 {
		k.log.Info("sockets came back", "count", len(k.back)-len(problems))
	}
	k.back = nil
	return k.kept
}

func (k *keeper) failed(err error) {
	k.log.Warn("the service manager does not keep everything: what it has not is closed if the daemon is killed", "error", err)
}

// notify tells a state. It never waits.
func (k *keeper) notify(state string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.states = append(k.states, state)
	if k.client != nil {
		k.client.Notify(state)
	}
}

// tell tells what the next service manager need not know. It never waits.
func (k *keeper) tell(state string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil {
		k.client.Notify(state)
	}
}

// isSupervised reports whether the service manager is there.
func (k *keeper) isSupervised() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.socket == "" {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // it cannot be told
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: k.socket})
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT)
}

// superviseBy goes on under another service manager, which gets all that is kept.
func (k *keeper) superviseBy(ctx context.Context, socket string, m *manager.Manager) error {
	if k.address() != socket && k.isSupervised() {
		return &listeners.Fault{
			Reason: listeners.StateInvalid, Message: "the daemon has a supervisor already, which is there",
			Fix: "end that one first, or give this one --control and --state of its own",
		}
	}
	k.mu.Lock()
	k.socket = socket
	k.reserve()
	if k.client == nil {
		k.client = fdstore.Dial(socket, k.failed)
	} else {
		k.client.Redirect(socket)
	}
	for _, state := range k.states {
		k.client.Notify(state)
	}
	k.kept.SetKeeper(k.client)
	k.storeOwn()
	k.mu.Unlock()
	k.log.Info("goes on under another supervisor", "socket", socket)
	return m.StoreAgain(ctx)
}

// isManager reports whether a path is that of the service manager's socket,
// whatever link leads there: what this process sends there is the daemon's word.
// Once another process is the daemon, its control sockets are such paths too: it
// may not know this process, and take what is forwarded there for the daemon's
// own user's. It is called on the loop, about to connect to that path, which looks
// the path up once more: it waits for no lock and for no other path.
func (k *keeper) isManager(path string) bool {
	all := k.reserved.Load()
	if all == nil {
		return false
	}
	var is os.FileInfo
	for _, at := range *all {
		switch {
		case path == at.path:
			return true
		case at.is == nil || strings.HasPrefix(path, "@"):
			continue
		case is == nil:
			var err error
			if is, err = os.Stat(path); err != nil {
				return false
			}
		}
		if os.SameFile(is, at.is) {
			return true
		}
	}
	return false
}

// A place is where a socket is that nothing is to be forwarded to.
type place struct {
	path string
	is   os.FileInfo // what is at that path; nil: it is in the abstract namespace, or was not there
}

// placeOf looks once, so that the loop need not. A socket that is bound anew at the
// path later is known by its name alone: systemd keeps its own for good.
func placeOf(path string) place {
	p := place{path: path}
	if !strings.HasPrefix(path, "@") {
		p.is, _ = os.Stat(path) // then the name alone tells it
	}
	return p
}

// reserve has isManager know the places of now; mu is held.
func (k *keeper) reserve() {
	all := slices.Clip(k.left)
	if k.socket != "" {
		all = append(all, placeOf(k.socket))
	}
	k.reserved.Store(&all)
}

// address is where the service manager is told; empty: nowhere.
func (k *keeper) address() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.socket
}

// hold has nothing sent before told is closed: until then the service manager
// does not listen to this process.
func (k *keeper) hold(told <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil {
		k.client.Hold(told)
	}
}

// passOn tells the service manager which process is the daemon from now on. It
// returns once that was sent.
func (k *keeper) passOn(pid int) {
	k.mu.Lock()
	client := k.client
	k.mu.Unlock()
	if client == nil {
		return
	}
	client.Notify(fmt.Sprintf("MAINPID=%d", pid))
	ctx, cancel := context.WithTimeout(context.Background(), takeTime)
	defer cancel()
	_ = client.Wait(ctx) // what fails is told by failed
}

// expect tells the supervisor, before it is too late for that, who may be the
// daemon soon: if this process is killed then, that one goes on or ends by itself,
// and until it has a third one would be too many. systemd ends all of a service
// with its main process, and so need not know.
func (k *keeper) expect(pid int) {
	k.mu.Lock()
	client := k.client
	k.mu.Unlock()
	if client == nil {
		return
	}
	client.Notify(fdstore.ExpectHeir(pid))
	ctx, cancel := context.WithTimeout(context.Background(), takeTime)
	defer cancel()
	_ = client.Wait(ctx) // what fails is told by failed
}

// close sends what waits to be sent.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil {
		k.client.Close()
	}
}
