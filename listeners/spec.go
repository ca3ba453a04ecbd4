package listeners

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// maxAddresses bounds how many addresses one listener has.
const maxAddresses = 256

// A Spec is what is wanted of a listener. It is a value: it is not changed once
// it is made. ParseSpec makes one, and every Spec it returns is valid.
type Spec struct {
	Listen  []Address
	Handler HandlerSpec
	Options map[string]Value // of the type that their rows say; never Null

	Concurrency Concurrency // how connections are served
	PauseMode   PauseMode   // what clients meet while it is paused; NotPaused is Hold
	Drain       DrainPolicy
	Access      AccessPolicy // who may connect
	Proxy       ProxyPolicy  // whether connections begin with a PROXY header
	TLS         *TLSPolicy   // nil: it is not terminated
}

// ParseSpec makes a Spec. When something is wrong it returns every fault, each
// a Violation with its field.
func ParseSpec(listen []string, handler HandlerSpec, options map[string]Value) (Spec, error) {
	s := Spec{Handler: handler, Options: make(map[string]Value, len(options))}
	var faults []error
	bad := func(reason Reason, field, format string, args ...any) {
		faults = append(faults, &Violation{Field: field, Message: fmt.Sprintf(format, args...), Reason: reason})
	}
	if len(listen) == 0 || len(listen) > maxAddresses {
		bad(SpecInvalid, "spec.listen", "needs an address, such as tcp://127.0.0.1:8080, and takes at most %d", maxAddresses)
	}
	for i, uri := range listen {
		a, err := ParseAddress(uri)
		field := fmt.Sprintf("spec.listen[%d]", i)
		switch {
		case err != nil:
			bad(SpecInvalid, field, "%v", err)
		case slices.Contains(s.Listen, a) && (!a.Network.ip() || a.IP.Port() != 0):
			bad(SpecInvalid, field, "%v is there twice", a)
		case handler != nil && a.Network.Datagram() && !handler.Datagram():
			bad(SpecInvalid, field, "the %s handler serves connections, and %s has none", handler.Kind(), a.Network.Base())
		case handler != nil && !a.Network.Datagram() && !servesStreams(handler):
			bad(SpecInvalid, field, "the upstreams take datagrams, and %s has connections", a.Network.Base())
		default:
			s.Listen = append(s.Listen, a)
		}
	}
	if handler == nil {
		bad(SpecInvalid, "spec.handler", "is missing: one of %v", HandlerKinds())
	} else if err := handler.Validate(); err != nil {
		faults = append(faults, err)
	}
	raw := 0
	for _, name := range sortedNames(options) {
		v, err := ParseOption(name, options[name], s.Class())
		switch o := LookupOption(name); {
		case err != nil:
			faults = append(faults, err)
		case v.typ == Null:
		case s.Options[o.Name].typ != Null:
			bad(SpecInvalid, "spec.options."+name, "is there twice, as %s too", o.Name)
		case s.Refuses(o) != "":
			bad(SpecInvalid, "spec.options."+name, "%s", s.Refuses(o))
		default:
			s.Options[o.Name] = v
			if o.IsRaw() {
				raw++
			}
		}
	}
	if raw > maxRaw {
		bad(SpecInvalid, "spec.options", "has %d raw options; at most %d", raw, maxRaw)
	}
	if err := errors.Join(faults...); err != nil {
		return Spec{}, err
	}
	return s, nil
}

// sortedNames are the names of options, in order. Most listeners have none.
func sortedNames(options map[string]Value) []string {
	if len(options) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(options))
}

// servesStreams reports whether a handler can serve connections: all can but
// one that relays to where datagrams go.
func servesStreams(h HandlerSpec) bool {
	f, ok := h.(*Forward)
	return !ok || f.Stream()
}

// ParseOption gives v the type of the named option and checks that the option
// is there, is for one of the networks, and takes the value. What it returns as
// an error is a Violation.
func ParseOption(name string, v Value, class NetworkSet) (Value, error) {
	field := "spec.options." + name
	if IsRaw(name) {
		if _, fault := rawOption(name); fault != nil {
			fault.Field = field
			return Value{}, fault
		}
	}
	o := LookupOption(name)
	if o == nil {
		message := "there is no such option; sockctl options lists them"
		near := nearestOption(name)
		if near != "" {
			message = fmt.Sprintf("there is no such option; did you mean %s?", near)
		}
		return Value{}, &Violation{Field: field, Message: message, Reason: OptionUnknown, Nearest: near}
	}
	if class != 0 && o.Networks&class == 0 {
		return Value{}, &Violation{Field: field, Message: fmt.Sprintf("is for %v, and the listener has none", o.Networks)}
	}
	v, err := o.Parse(v)
	if err != nil {
		return Value{}, &Violation{Field: field, Message: err.Error()}
	}
	return v, nil
}

// Class is the set of networks that the addresses are of.
func (s Spec) Class() (c NetworkSet) {
	for _, a := range s.Listen {
		c |= a.Network.Class()
	}
	return c
}

// With returns a copy of s in which the named option is v; Null takes it out.
func (s Spec) With(name string, v Value) Spec {
	s.Options = maps.Clone(s.Options)
	if v.typ == Null {
		delete(s.Options, name)
		return s
	}
	s.Options[name] = v
	return s
}

// Beyond lists the addresses that s has and old has not. One with port 0 counts
// as often as it is there.
func (s Spec) Beyond(old Spec) []Address {
	had := slices.Clone(old.Listen)
	var more []Address
	for _, a := range s.Listen {
		if i := slices.Index(had, a); i >= 0 {
			had = slices.Delete(had, i, i+1)
		} else {
			more = append(more, a)
		}
	}
	return more
}

// option returns what the named option should be: as asked, or its default.
func (s Spec) option(o *Option) Value {
	if v, ok := s.Options[o.Name]; ok {
		return v
	}
	return o.Default
}

// tunables returns the daemon's own settings.
func (s Spec) tunables() Tunables {
	if len(s.Options) == 0 {
		return defaultTunables
	}
	t := defaultTunables
	for name, v := range s.Options {
		if o := LookupOption(name); o != nil && o.tunable != nil {
			*o.tunable(&t) = o.number(v)
		}
	}
	return t
}

// Equal reports whether two Specs want the same.
func (s Spec) Equal(other Spec) bool {
	a, errA := json.Marshal(s)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && string(a) == string(b)
}

// SameHandler reports whether two Specs have handlers of one kind that are
// configured alike and served alike.
func (s Spec) SameHandler(other Spec) bool {
	if s.Handler == nil || other.Handler == nil {
		return false // one of them is not made by ParseSpec
	}
	if s.concurrency() != other.concurrency() {
		return false
	}
	a, errA := marshalHandler(s.Handler)
	b, errB := marshalHandler(other.Handler)
	return errA == nil && errB == nil && string(a) == string(b)
}

// savedSpec is how a Spec is saved.
type savedSpec struct {
	Concurrency Concurrency      `json:"concurrency,omitempty"`
	Listen      []string         `json:"listen"`
	Handler     json.RawMessage  `json:"handler"`
	Options     map[string]Value `json:"options,omitempty"`
	Pause       PauseMode        `json:"pause_mode,omitempty"`
	Drain       DrainPolicy      `json:"drain,omitzero"`
	Access      AccessPolicy     `json:"access,omitzero"`
	Proxy       ProxyPolicy      `json:"proxy_protocol,omitzero"`
	TLS         *TLSPolicy       `json:"tls,omitempty"`
}

// MarshalJSON returns the form that UnmarshalJSON takes.
func (s Spec) MarshalJSON() ([]byte, error) {
	handler, err := marshalHandler(s.Handler)
	if err != nil {
		return nil, err
	}
	saved := savedSpec{Handler: handler, Options: s.Options, Concurrency: s.Concurrency, Pause: s.PauseMode, Drain: s.Drain, Access: s.Access, Proxy: s.Proxy, TLS: s.TLS}
	for _, a := range s.Listen {
		saved.Listen = append(saved.Listen, a.String())
	}
	return json.Marshal(saved)
}

// UnmarshalJSON checks what it reads as ParseSpec does.
func (s *Spec) UnmarshalJSON(data []byte) error {
	var saved savedSpec
	if err := json.Unmarshal(data, &saved); err != nil {
		return err
	}
	handler, err := unmarshalHandler(saved.Handler)
	if err != nil {
		return err
	}
	if *s, err = ParseSpec(saved.Listen, handler, saved.Options); err != nil {
		return err
	}
	if *s, err = s.WithAccess(saved.Access); err != nil {
		return err
	}
	if *s, err = s.WithProxy(saved.Proxy); err != nil {
		return err
	}
	if *s, err = s.WithTLS(saved.TLS); err != nil {
		return err
	}
	if *s, err = s.WithConcurrency(saved.Concurrency); err != nil {
		return err
	}
	*s, err = s.WithPolicy(saved.Pause, saved.Drain)
	return err
}

// WithPolicy returns a copy of s that is paused and drained so.
func (s Spec) WithPolicy(mode PauseMode, drain DrainPolicy) (Spec, error) {
	s.PauseMode, s.Drain = mode, drain
	return s, errors.Join(mode.check(s.Listen), drain.check())
}

// WithProxy returns a copy of s whose connections begin so.
func (s Spec) WithProxy(p ProxyPolicy) (Spec, error) {
	s.Proxy = p
	if _, ok := s.Handler.(*Handoff); ok && p.Mode != ProxyOff {
		return s, &Violation{Field: "spec.proxy_protocol.mode", Message: "is not for handoff: the process reads the header itself"}
	}
	if _, ok := s.Handler.(*Exec); ok && p.Mode != ProxyOff {
		return s, &Violation{Field: "spec.proxy_protocol.mode", Message: "is not for the exec handler: the program reads the connection, not the daemon"}
	}
	return s, p.check(s.Listen)
}
