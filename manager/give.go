package manager

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
)

// maxGiven bounds how many listeners' sockets are given at once.
const maxGiven = 256

// Give returns copies of the sockets of listeners, each with the name of its
// listener, for a program that accepts by itself: a listener that runs is paused
// (hold), so that the two do not take each other's connections. If one of them
// cannot be given, none is, and none is paused. The caller closes the copies.
func (m *Manager) Give(ctx context.Context, names []string) (of []string, files []int, err error) {
	if err := checkGiven(names); err != nil {
		return nil, nil, err
	}
	release, err := m.change(ctx, names...)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	steps, given, err := m.planGive(names)
	if err != nil {
		return nil, nil, err
	}
	var undo []func() // on the loop
	defer func() {
		if err != nil {
			_ = m.on(context.WithoutCancel(ctx), func() error { // ended means closed
				for _, f := range undo {
					f()
				}
				return nil
			})
			for _, fd := range files {
				_ = unix.Close(fd)
			}
			of, files = nil, nil
		}
	}()
	// First what may fail for want of descriptors, then the pauses as one change.
	err = m.on(ctx, func() error {
		for _, l := range given {
			some, unlend, err := l.Lend()
			undo = append(undo, unlend)
			for _, fd := range some {
				of, files = append(of, l.Name), append(files, fd)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return of, files, err
	}
	if err := m.commit(ctx, steps, true); err != nil {
		return of, files, err
	}
	for _, s := range steps {
		m.told(ctx, s.event(), s.e)
	}
	return of, files, nil
}

func checkGiven(names []string) error {
	var faults []*listeners.Violation
	if len(names) == 0 || len(names) > maxGiven {
		faults = append(faults, &listeners.Violation{Field: "names", Message: fmt.Sprintf("are %d; at least 1, at most %d", len(names), maxGiven)})
	}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		if seen[name] {
			faults = append(faults, &listeners.Violation{Field: fmt.Sprintf("names[%d]", i), Message: fmt.Sprintf("%.80s is there twice", name)})
		}
		seen[name] = true
	}
	return invalid(faults)
}

// planGive finds the listeners, whose names are locked, and what pauses those
// that are not yet.
func (m *Manager) planGive(names []string) (steps []*step, given []*listeners.Listener, err error) {
	for _, name := range names {
		e, before, err := m.current(name, "")
		if err != nil {
			return nil, nil, err
		}
		after := *before
		s := &step{e: e, before: before, after: &after}
		if err := s.pause(listeners.Hold, 0); err != nil {
			return nil, nil, err
		}
		l := m.liveOf(e)
		if l == nil || !m.isRunning(e) {
			return nil, nil, &listeners.Fault{Reason: listeners.StateInvalid, Message: name + " has no sockets: it does not run", Fix: "sockctl start " + name}
		}
		given = append(given, l)
		if after.Desired != before.Desired || after.Spec.PauseMode != before.Spec.PauseMode || !after.ResumeAt.Equal(before.ResumeAt) {
			after.touch(time.Now())
			steps = append(steps, s)
		}
	}
	return steps, given, nil
}
