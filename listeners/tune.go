package listeners

import (
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// An Outcome is what came of one change of an option.
type Outcome uint8

// The outcomes.
const (
	Applied     Outcome = iota + 1 // in force now
	Clamped                        // in force, with a value the kernel changed
	Unchanged                      // was so already
	Deferred                       // in force when the listener runs
	NeedsRebind                    // would need a new socket
	Failed                         // the kernel refused it
)

// A Result is what came of one option on one target, as the kernel has it.
type Result struct {
	Option      *Option
	Requested   Value // Null: the default
	Previous    Value
	Effective   Value
	Outcome     Outcome
	Errno       string // when Failed: EPERM
	Message     string // what clamped it, what to do
	Reason      Reason // when Failed: the class of it
	Connections uint64 // that this stands for; 0: the listener itself
}

// A setting is an option to be set on accepted connections of some networks.
type setting struct {
	option   *Option
	value    Value
	networks NetworkSet
}

// Tune changes an option of a listener on the loop: for its sockets, and for
// connections to come. v has been through ParseOption. When the kernel refuses
// it on one socket, none has it.
func (l *Listener) Tune(o *Option, v Value) Result {
	r := Result{Option: o, Requested: v}
	if !o.OnSocket() {
		l.tuneOwn(&r)
	} else {
		l.tuneSockets(&r)
	}
	if r.Outcome != Failed && r.Outcome != NeedsRebind {
		l.spec = l.spec.With(o.Name, v)
		l.prepareConns()
		l.reshard()
	}
	return r
}

// tuneOwn changes what the daemon itself acts on.
func (l *Listener) tuneOwn(r *Result) {
	field := r.Option.tunable(&l.tunables)
	r.Previous = r.Option.value(*field)
	r.Effective = r.Requested
	if r.Requested.typ == Null {
		r.Effective = r.Option.Default
	}
	*field = r.Option.number(r.Effective)
	r.Outcome = outcome(r)
	l.retuned()
}

// show lets goroutines see the tunables.
func (l *Listener) show() {
	t := &defaultTunables // one for all that have nothing else
	if l.tunables != *t {
		t = new(Tunables)
		*t = l.tunables
	}
	l.shown.Store(t)
}

// retuned lets changed tunables take effect on what is open.
func (l *Listener) retuned() {
	l.show()
	l.set.growBuffer(l.tunables.ReadBuffer)
	l.recount()
	l.refault()
	l.repace()
	l.rethrottle()
	l.restall()
	l.unlimit()
	l.set.sweep(l, (*conn).arm, func() {})
}

func (l *Listener) tuneSockets(r *Result) {
	var touched []*socket
	var err error
	r.Outcome, r.Message = Unchanged, "no socket of the listener has it"
	for _, e := range l.endpoints {
		s := e.sock()
		if !r.Option.isFor(s) {
			if s.shut && r.Option.Name == backlog {
				r.Outcome, r.Message = Deferred, "in force when the listener is resumed"
			}
			continue
		}
		one := Result{Option: r.Option, Requested: r.Requested}
		touched = append(touched, s)
		if err = one.apply(s); err != nil || one.Outcome == NeedsRebind {
			*r = one
			break
		}
		if r.Outcome == Unchanged || one.Outcome == Clamped { // one Result speaks for all
			*r = one
		}
	}
	if err != nil {
		for _, s := range touched {
			_ = r.Option.give(s, l.spec.Options[r.Option.Name]) // it took that before
		}
		r.fail(err)
	}
}

// apply sets the option on one socket and reads it before and after.
func (r *Result) apply(s *socket) (err error) {
	o := r.Option
	if r.Previous, err = o.Get(s); err != nil && !o.IsRaw() { // some can only be set
		return err
	}
	if o.Effect == Rebind {
		r.Effective, r.Outcome = r.Previous, Unchanged
		if want, _ := r.wanted(); want != r.Previous {
			r.Outcome = NeedsRebind
			r.Message = "takes a new socket: apply it with --rebind, which loses no connection, or stop the listener, tune it, start it"
		}
		return nil
	}
	return r.give(s)
}

// give sets the option on one socket, and reads what the kernel made of it.
func (r *Result) give(s *socket) (err error) {
	o := r.Option
	if err = o.give(s, r.Requested); err != nil {
		return err
	}
	if r.Effective, err = o.Get(s); err != nil && o.IsRaw() {
		r.Outcome, r.Message, err = Applied, "the kernel took it, and does not let it be read back: "+err.Error(), nil
		return err
	}
	if err != nil {
		return err
	}
	if o.IsRaw() {
		r.likeAsked()
	}
	r.Outcome = outcome(r)
	if r.Outcome == Clamped {
		r.Message = o.clampMessage(r.Requested)
	} else if o.Effect == NewConnections {
		r.Message = "shows on connections that are made from now on"
	}
	return nil
}

// wanted is what was asked, with the default for Null.
func (r *Result) wanted() (v Value, known bool) {
	if r.Requested.typ != Null {
		return r.Requested, true
	}
	return r.Option.Probe()
}

func outcome(r *Result) Outcome {
	switch {
	case r.Requested.typ != Null && !r.Option.Took(r.Requested, r.Effective):
		return Clamped
	case r.Previous == r.Effective:
		return Unchanged
	default:
		return Applied
	}
}

// clampMessage says what keeps the kernel from taking what was asked.
func (o *Option) clampMessage(asked Value) string {
	if n, ok := o.ClampValue(); ok && asked.n > n {
		return fmt.Sprintf("the kernel limits it: sysctl %s is %d", o.Clamp, n)
	}
	return "the kernel rounds it"
}

func (r *Result) fail(err error) {
	r.Outcome, r.Effective = Failed, r.Previous
	fault := optionFault(r.Option, r.Requested, err)
	r.Message, r.Reason = fault.Error(), fault.Reason
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		r.Errno = unix.ErrnoName(errno)
	}
}

// prepareConns works out what must be set on each accepted connection: what is
// in the spec and is not inherited from the listening socket. Only TCP
// inherits.
func (l *Listener) prepareConns() {
	if l.tunables.Durability > 0 && l.set != nil && l.set.durables != nil {
		l.set.durables.ready()
		_ = l.config() // now, and not between an accept and its record
	}
	l.onConn = nil
	if len(l.spec.Options) == 0 {
		return
	}
	for _, o := range l.spec.rows() {
		v, ok := l.spec.Options[o.Name]
		if !ok {
			continue
		}
		l.lingers = l.lingers || o.Name == linger
		networks := o.Networks & OnStream
		if o.Inherited || !o.OnConnection() {
			networks &^= OnTCP
		}
		if o.OnConnection() && networks&l.spec.Class() != 0 {
			l.onConn = append(l.onConn, setting{o, v, networks})
		}
	}
}

// Retarget gives the listener another spec with the same addresses: handler
// and settings of connections to come. Options of the sockets are Tune's.
func (l *Listener) Retarget(spec Spec) {
	if !spec.SameHandler(l.spec) {
		l.setHandler(spec.handler())
	}
	l.settleTLS(spec)
	l.spec, l.tunables = spec, spec.tunables()
	l.prepareConns()
	l.retuned()
	l.reshard()
}

// InForce reads options of the listener's sockets from the kernel: those named,
// or all that are for its networks.
func (l *Listener) InForce(names []string) map[string]Value {
	values := map[string]Value{}
	for name, o := range l.spec.selectOptions(names) {
		if !o.OnSocket() {
			if o.Networks&l.spec.Class() != 0 {
				values[name] = o.value(*o.tunable(&l.tunables))
			}
			continue
		}
		for _, e := range l.endpoints {
			s := e.sock()
			if !o.isFor(s) {
				continue
			}
			if v, err := o.Get(s); err == nil { // this kernel may not know it
				values[name] = v
			}
			break
		}
	}
	return values
}

// Wanted returns what options will be when the listener runs: those named, or
// all that are for its networks.
func (s Spec) Wanted(names []string) map[string]Value {
	values := map[string]Value{}
	for name, o := range s.selectOptions(names) {
		if o.Networks&s.Class() == 0 {
			continue
		}
		v, ok := s.Options[o.Name]
		if !ok {
			v, ok = o.Probe()
		}
		if ok {
			values[name] = v
		}
	}
	return values
}

// selectOptions goes through the named options, each under the name it was
// asked by, or through all that there are for a listener of this spec.
func (s Spec) selectOptions(names []string) iter.Seq2[string, *Option] {
	return func(yield func(string, *Option) bool) {
		for _, name := range names {
			if o := LookupOption(name); o != nil && !yield(name, o) {
				return
			}
		}
		if len(names) > 0 {
			return
		}
		for _, o := range s.rows() {
			if !yield(o.Name, o) {
				return
			}
		}
	}
}

// Notes compares what was asked with what the kernel took, for a listener that
// was just opened.
func (l *Listener) Notes() []Result {
	var notes []Result
	if len(l.spec.Options) == 0 {
		return nil
	}
	for _, o := range l.spec.rows() {
		asked, ok := l.spec.Options[o.Name]
		if !ok || !o.OnSocket() {
			continue
		}
		for _, e := range l.endpoints {
			s := e.sock()
			if !o.isFor(s) {
				continue
			}
			if got, err := o.Get(s); err == nil && !o.Took(asked, got) {
				notes = append(notes, Result{Option: o, Requested: asked, Effective: got, Outcome: Clamped, Message: o.clampMessage(asked)})
			}
			break
		}
	}
	return notes
}
