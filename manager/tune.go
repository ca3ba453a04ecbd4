package manager

import (
	"fmt"
	"maps"
	"slices"

	"github.com/sockmgr/sockmgr/listeners"
)

// tuneTo gives a running listener the options of spec. When one is refused, all
// are as before; undo makes that so later.
func tuneTo(l *listeners.Listener, spec listeners.Spec) (notes []Note, undo func(), err error) {
	before := l.Spec().Options
	var done []*listeners.Option
	undo = func() {
		for _, o := range done {
			l.Tune(o, before[o.Name])
		}
	}
	names := maps.Clone(before)
	maps.Copy(names, spec.Options)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before[name] == spec.Options[name] {
			continue
		}
		o := listeners.LookupOption(name)
		if o.Effect == listeners.Rebind {
			continue // the new sockets have it
		}
		r := l.Tune(o, spec.Options[name])
		switch r.Outcome {
		case listeners.Failed, listeners.NeedsRebind:
			undo()
			return nil, nil, refused(l.Name, r)
		case listeners.Clamped:
			notes = append(notes, clampNote(r))
		default: // it is as asked
		}
		done = append(done, o)
	}
	return notes, undo, nil
}

// refused is the Fault of an option that could not be changed.
func refused(name string, r listeners.Result) error {
	f := &listeners.Fault{
		Reason: listeners.SpecInvalid, Message: fmt.Sprintf("%s: %s=%v: %s", name, r.Option.Name, r.Requested, r.Message),
		Meta: map[string]string{"option": r.Option.Name}, Field: "spec.options." + r.Option.Name,
	}
	if r.Outcome == listeners.NeedsRebind {
		f.Reason = listeners.OptionNeedsRebind
	}
	if r.Reason != "" {
		f.Reason = r.Reason
	}
	if r.Reason == listeners.CapabilityMissing && r.Option.Capability != "" {
		f.Meta["capability"] = r.Option.Capability
	}
	if r.Errno != "" {
		f.Meta["errno"] = r.Errno
	}
	return f
}
