package manager

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

// A Severity is how bad an event is.
type Severity uint8

// The severities.
const (
	Debug Severity = iota + 1
	Notice
	Warning // look at it
	Failure // something does not work
)

// An Event is one thing that happened, for people and scripts.
type Event struct {
	Seq        uint64 // only grows, over restarts of the daemon too
	Time       time.Time
	Resource   string // listeners/web, daemon
	Type       string // stable and dotted: listener.created
	Severity   Severity
	Message    string
	Attributes map[string]string
	Cause      Cause
}

// weight is about what an event takes in memory.
func (e Event) weight() int {
	n := 512 + len(e.Message)
	for k, v := range e.Attributes {
		n += len(k) + len(v)
	}
	return n
}

// logged is an event in the log. That of a change of a listener is put into words
// when it is read: most never are.
type logged struct {
	seq    uint64
	time   time.Time
	cause  Cause
	event  *Event     // nil: it is of a change, or told later
	change ChangeType // of the listener
	info   *Info      // after it
	later  *told      // nil: it is of a change
}

// told is an event that is put into words when it is read for the first time.
type told struct {
	weight int // about what it takes in memory
	once   sync.Once
	words  func() Event // nil once they are there
	event  *Event
}

func (t *told) read() Event {
	t.once.Do(func() {
		e := t.words()
		t.event, t.words = &e, nil
	})
	return *t.event
}

// wordsLater is the most bytes of a record that the log holds on to, instead of the
// words.
const wordsLater = 512

// weight is about what it takes in memory.
func (l logged) weight() int {
	switch {
	case l.event != nil:
		return l.event.weight()
	case l.later != nil:
		return l.later.weight
	}
	return 1024 + wordsLater
}

// words returns the event.
func (l logged) words() Event {
	var e Event
	switch {
	case l.event != nil:
		e = *l.event
	case l.later != nil:
		e = l.later.read()
	default:
		e = eventOf(l.change, l.info)
	}
	e.Seq, e.Time, e.Cause = l.seq, l.time, l.cause
	return e
}

// A Cause is who caused an event, and with which call.
type Cause struct {
	Actor     string // uid:1000; daemon when it was nobody else
	RequestID string
}

type causeKey struct{}

// WithCause says on whose behalf what is done with the context is done.
func WithCause(ctx context.Context, c Cause) context.Context {
	return context.WithValue(ctx, causeKey{}, c)
}

func causeOf(ctx context.Context) Cause {
	if c, ok := ctx.Value(causeKey{}).(Cause); ok {
		return c
	}
	return Cause{Actor: "daemon"}
}

// Tell adds an event to the log, of something that the manager has no part in.
func (m *Manager) Tell(ctx context.Context, e Event) { m.tell(ctx, e) }

// TellLater is Tell of an event that is put into words when it is read for the
// first time, on any goroutine, by calling words. What that holds on to takes about
// so many bytes.
func (m *Manager) TellLater(ctx context.Context, weight int, words func() Event) {
	now, later := time.Now(), &told{words: words, weight: weight}
	m.events.publish(func(seq uint64) logged { return logged{seq: seq, time: now, cause: causeOf(ctx), later: later} })
}

// tell adds an event to the log.
func (m *Manager) tell(ctx context.Context, e Event) {
	now := time.Now()
	m.events.publish(func(seq uint64) logged { return logged{seq: seq, time: now, cause: causeOf(ctx), event: &e} })
}

// Events returns the events that are kept, newest first, and the sequence
// number to watch on from.
func (m *Manager) Events() (events []Event, seq uint64) {
	events = m.keptEvents()
	if len(events) > 0 {
		return events, events[0].Seq
	}
	return nil, m.events.seq()
}

func (m *Manager) keptEvents() []Event {
	kept := m.events.kept()
	events := make([]Event, len(kept))
	for i, l := range kept {
		events[i] = l.words()
	}
	return events
}

// NextEvent waits for the event after seq.
func (m *Manager) NextEvent(ctx context.Context, seq uint64) (Event, error) {
	l, err := m.events.next(ctx, seq)
	if err != nil {
		return Event{}, err
	}
	return l.words(), nil
}

// stateWords are the events of a listener that changed by itself.
var stateWords = map[State]struct {
	severity      Severity
	what, message string
}{
	Running:  {Notice, "running", "runs"},
	Limited:  {Warning, "limited", "accepts no more until a connection ends: max_connections is reached"},
	Paused:   {Notice, "paused", "is paused"},
	Draining: {Notice, "draining", "accepts nothing more; its connections finish"},
	Stopped:  {Notice, "stopped", "is stopped"},
	Failed:   {Failure, "failed", "should run and cannot"},
}

// String is the word that events, clients and metrics have for it.
func (s State) String() string { return stateWords[s].what }

// eventOf puts a change of a listener into words.
func eventOf(t ChangeType, i *Info) Event {
	e := Event{Resource: "listeners/" + i.Name, Severity: Notice, Attributes: map[string]string{
		"generation": fmt.Sprint(i.Generation), "state": stateWords[i.State].what,
	}}
	if addresses := boundText(i); addresses != "" {
		e.Attributes["bound"] = addresses
	}
	switch t {
	case Added:
		e.Type, e.Message = "listener.created", i.Name+" was made"
	case Modified:
		e.Type, e.Message = "listener.updated", i.Name+" was changed"
	case Deleted:
		e.Type, e.Message = "listener.deleted", i.Name+" is gone"
	case StatusChanged:
		w := stateWords[i.State]
		e.Type, e.Severity, e.Message = "listener."+w.what, w.severity, i.Name+" "+w.message
		if i.State == Paused && !i.Live.Drain.Began.IsZero() {
			e.Type = "listener.drained"
		}
		if i.State == Limited && i.Live.Limit != "" {
			e.Message = i.Name + " accepts no more for now: " + i.Live.Limit
		}
		if i.State == Failed || i.State == Paused {
			e.Message += ": " + i.Message
		}
	}
	return e
}

func boundText(i *Info) string {
	texts := make([]string, 0, len(i.Live.Bound))
	for _, a := range i.Live.Bound {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " ")
}

// tellTuned adds an event for each option that was changed.
func (m *Manager) tellTuned(ctx context.Context, resource string, results []listeners.Result) {
	for _, r := range results {
		e := Event{Resource: resource, Type: "option.changed", Severity: Notice, Attributes: map[string]string{
			"option": r.Option.Name, "asked": r.Requested.String(), "was": r.Previous.String(), "now": r.Effective.String(),
		}}
		e.Message = fmt.Sprintf("%s: %s is %v, was %v", resource, r.Option.Name, r.Effective, r.Previous)
		switch r.Outcome {
		case listeners.Clamped:
			e.Type, e.Severity = "option.clamped", Warning
			e.Message += fmt.Sprintf("; %v was asked: %s", r.Requested, r.Message)
		case listeners.Failed:
			e.Type, e.Severity = "option.refused", Failure
			e.Message = fmt.Sprintf("%s: %s=%v: %s", resource, r.Option.Name, r.Requested, r.Message)
		case listeners.Applied:
		default:
			continue // nothing changed
		}
		if r.Connections > 0 {
			e.Attributes["connections"] = fmt.Sprint(r.Connections)
		}
		m.tell(ctx, e)
	}
}
