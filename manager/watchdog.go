package manager

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"time"
)

const (
	watchInterval = time.Second // between two looks at the loop
	maxStack      = 4 << 20     // of all goroutines, of which one is wanted
)

// A Watchdog looks at the event loop from outside. A turn that does not end
// holds up every listener, and the loop cannot tell.
type Watchdog struct {
	Every time.Duration // zero: once a second. A turn that takes longer is told of
	Alive func()        // called as often, while the loop turns
}

// Watch begins to look, until the manager is shut down.
func (m *Manager) Watch(w Watchdog) {
	if w.Every <= 0 {
		w.Every = watchInterval
	}
	m.keeper.Go(func() { m.watchLoop(w) })
}

func (m *Manager) watchLoop(w Watchdog) {
	ticker := time.NewTicker(w.Every)
	defer ticker.Stop()
	var asked time.Time // since when there is no answer; zero: there was one
	turned, told := make(chan struct{}, 1), false
	post := m.loop.Post
	if len(m.loops) > 1 {
		post = m.postRound
	}
	for {
		select {
		case <-ticker.C:
		case <-m.ending:
			return
		case <-m.loopEnded:
			return
		}
		if asked.IsZero() {
			if post(func() { turned <- struct{}{} }) != nil {
				return
			}
			asked = time.Now()
		}
		select {
		case <-turned:
			if told {
				m.log.Warn("the event loop turns again", "after", time.Since(asked).Round(time.Millisecond))
			}
			asked, told = time.Time{}, false
			if w.Alive != nil {
				w.Alive()
			}
		default:
			if since := time.Since(asked); since >= w.Every && !told {
				told = true
				m.stalled(since)
			}
		}
	}
}

// stalled tells where the loop is.
func (m *Manager) stalled(since time.Duration) {
	stack := loopStack()
	m.log.Error("the event loop does not turn: no listener is served", "for", since.Round(time.Millisecond), "stack", stack)
	m.hear(Event{
		Type: "loop.stalled", Severity: Failure, Message: fmt.Sprintf("the event loop has not turned for %v: no listener was served", since.Round(time.Millisecond)),
		Attributes: map[string]string{"stack": stack},
	})
}

// loopStack is what the goroutine of the loop does.
func loopStack() string {
	all := make([]byte, 64<<10)
	for {
		n := runtime.Stack(all, true)
		if n < len(all) || n >= maxStack {
			all = all[:n]
			break
		}
		all = make([]byte, 4*len(all))
	}
	for one := range bytes.SplitSeq(all, []byte("\n\n")) {
		if bytes.Contains(one, []byte("mux.(*Loop).Run(")) {
			return strings.ToValidUTF8(string(one[:min(len(one), maxText)]), "")
		}
	}
	return "it is not known where the loop is"
}
