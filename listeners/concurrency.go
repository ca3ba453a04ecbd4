package listeners

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Concurrency is how connections are served.
type Concurrency uint8

// The ways. A handler knows one of them.
const (
	AnyConcurrency Concurrency = iota // the handler's own
	OnLoop                            // by the loop, all in one thread
	InProcess                         // by a process for each
)

var concurrencies = [...]string{"", "loop", "process"}

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
	own := OnLoop
	if _, ok := s.Handler.(*Exec); ok {
		own = InProcess
	}
	if c != AnyConcurrency && c != own {
		return s, &Violation{Field: "spec.concurrency", Message: fmt.Sprintf("%v is not for the %s handler: it has %v", c, s.Handler.Kind(), own)}
	}
	return s, nil
}
