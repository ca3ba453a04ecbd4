package mux

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Events is a set of readiness conditions.
type Events uint8

// The conditions. Errors and hang-ups are reported as both.
const (
	Readable Events = 1 << iota // a read or accept would not wait
	Writable                    // a write would not wait
	// HangUp is to be wanted alone: errors, and that both sides have finished,
	// reported as the other two. select(2) does not tell of them.
	HangUp
	// Urgent is out-of-band data of TCP, reported as Readable.
	Urgent
)

// Names lists the conditions in words.
func (e Events) Names() []string {
	var names []string
	if e&Readable != 0 {
		names = append(names, "readable")
	}
	if e&Writable != 0 {
		names = append(names, "writable")
	}
	return names
}

// A Key names one registration: a descriptor and which use of its number.
type Key struct {
	FD  int
	Gen uint32
}

// Ready is one registration that can make progress.
type Ready struct {
	Key
	Events Events
}

// A Poller reports readiness, level-triggered: it says so again on every Wait
// until the condition is gone. It is not safe for concurrent use; its Loop is
// its only caller.
type Poller interface {
	// Name is epoll, poll or select.
	Name() string
	// Add begins to report k.FD, under k.
	Add(k Key, want Events) error
	// Modify replaces what is wanted of a descriptor that was added.
	Modify(k Key, want Events) error
	// Remove ends it. The descriptor must still be open: the kernel cannot
	// name a closed one.
	Remove(fd int) error
	// Wait appends to dst what is ready and returns it. It waits until
	// something is, at most for timeout; a negative timeout is for ever. An
	// interrupted wait is an empty one.
	Wait(dst []Ready, timeout time.Duration) ([]Ready, error)
	// Close lets go of what the Poller holds in the kernel.
	Close() error
}

// ErrFDRange is returned by the select poller for a descriptor that select(2)
// cannot express, 1024 or above.
var ErrFDRange = errors.New("select(2) takes descriptors below 1024 only: use --poller epoll or poll")

var pollers = map[string]func() (Poller, error){
	"epoll":  newEpoll,
	"poll":   newPoll,
	"select": newSelect,
}

// Pollers returns the names that NewPoller knows, sorted.
func Pollers() []string { return slices.Sorted(maps.Keys(pollers)) }

// NewPoller returns the named poller.
func NewPoller(name string) (Poller, error) {
	f, ok := pollers[name]
	if !ok {
		return nil, fmt.Errorf("unknown poller %q: it is one of %s", name, strings.Join(Pollers(), ", "))
	}
	return f()
}

// millis rounds up, so that a timer never wakes the loop early to spin.
func millis(d time.Duration) int {
	if d < 0 {
		return -1
	}
	const most = 1 << 30 // fits the kernel's int; about 12 days
	return int(min((d+time.Millisecond-1)/time.Millisecond, most))
}
