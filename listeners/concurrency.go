package listeners

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Concurrency is how connections are served.
type Concurrency uint8

// The ways. A handler knows one or more of them.
const (
	AnyConcurrency Concurrency = iota // the handler's own
	OnLoop                            // by the loop, all in one thread
	InThread                          // by a goroutine for each
	InProcess                         // by a process for each: exec's program, or this one again
)

var concurrencies = [...]string{"", "loop", "thread", "process"}

// String returns the word, nothing for AnyConcurrency.
func (c Concurrency) String() string { return concurrencies[c] }

// MarshalJSON returns the word.
func (c Concurrency) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// UnmarshalJSON takes a word.
func (c *Concurrency) UnmarshalJSON(data []byte) error {
	var word string
	if err := json.Unmarshal(data, &word); err != nil {
		return err
	}
	i := slices.Index(concurrencies[:], word)
	if i < 0 {
		return fmt.Errorf("%q is not a concurrency", word)
	}
	*c = Concurrency(i)
	return nil
}

// WithConcurrency returns a copy of s that is served so.
func (s Spec) WithConcurrency(c Concurrency) (Spec, error) {
	s.Concurrency = c
	if s.Handler == nil {
		return s, nil // which is a fault of its own
	}
	if c != AnyConcurrency && !slices.Contains(s.ways(), c) {
		return s, &Violation{Field: "spec.concurrency", Message: fmt.Sprintf("%v is not for the %s handler%s: it has %s", c, s.Handler.Kind(), s.unlike(), words(s.ways()))}
	}
	if c == InProcess && s.Proxy.Mode != ProxyOff {
		return s, &Violation{Field: "spec.concurrency", Message: "process is not for connections that begin with a PROXY header: the process reads the connection, not the daemon"}
	}
	for _, name := range sortedNames(s.Options) {
		if why := s.Refuses(LookupOption(name)); why != "" {
			return s, &Violation{Field: "spec.options." + name, Message: why}
		}
	}
	return s, nil
}

// concurrency is how it is served.
func (s Spec) concurrency() Concurrency {
	if s.Concurrency == AnyConcurrency {
		return s.ways()[0]
	}
	return s.Concurrency
}

// ways are those that the handler knows; the first is what it has unless
// another is asked for. Datagrams are always the loop's.
func (s Spec) ways() []Concurrency {
	switch h := s.Handler.(type) {
	case *Exec:
		return []Concurrency{InProcess}
	case *Handoff, *Remote:
		return []Concurrency{OnLoop}
	case *Func:
		return []Concurrency{InThread}
	case *Forward:
		if len(h.Routes) > 0 { // the loop looks for the name
			return []Concurrency{OnLoop}
		}
	}
	_, relays := s.Handler.(*Forward) // which share their upstreams
	switch {
	case s.Class()&OnStream == 0:
		return []Concurrency{OnLoop}
	case s.TLS != nil: // a handshake takes long
		return []Concurrency{InThread}
	case relays:
		return []Concurrency{OnLoop, InThread}
	}
	return []Concurrency{OnLoop, InThread, InProcess}
}

// unlike tells what of the listener's is the reason, if something is.
func (s Spec) unlike() string {
	f, ok := s.Handler.(*Forward)
	switch {
	case s.Class()&OnStream == 0:
		return " of datagrams"
	case s.TLS != nil:
		return " with TLS"
	case ok && len(f.Routes) > 0:
		return " with routes"
	}
	return ""
}

func words(ways []Concurrency) string {
	text := make([]string, len(ways))
	for i, w := range ways {
		text[i] = w.String()
	}
	return strings.Join(text, " or ")
}
