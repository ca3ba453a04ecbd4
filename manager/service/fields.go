package service

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

// A wantedField is one thing that a listener wants, as JSON.
type wantedField struct{ path, text string }

// fieldWords remembers handlers as JSON: of ten thousand listeners in one answer
// most have the same one.
type fieldWords struct {
	known   map[string]string // by their bytes as they are sent
	wire    []byte
	was, is []wantedField

	again   bool // what it returns is done with when it is called next
	made    []pb.FieldChange
	changed []*pb.FieldChange
}

// mostWords bounds it.
const mostWords = 64

// fieldChanges compares what two listeners want, field by field; options,
// labels and annotations each for itself.
func fieldChanges(before, after *pb.Listener) []*pb.FieldChange {
	return new(fieldWords).changes(before, after)
}

func (w *fieldWords) changes(before, after *pb.Listener) []*pb.FieldChange {
	w.was, w.is = w.wanted(w.was[:0], before), w.wanted(w.is[:0], after)
	was, is := w.was, w.is
	changes, made := w.room(len(was) + len(is))
	both := before.GetSpec() != nil && after.GetSpec() != nil
	add := func(path, before, after string) {
		effect := effectOf(path)
		c := &made[len(changes)]
		c.Path, c.Before, c.After, c.Effect, c.NeedsRebind = path, before, after, effect, effect == pb.OptionSpec_EFFECT_REBIND && both
		changes = append(changes, c)
	}
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(was) == 0 || len(is) > 0 && is[0].path < was[0].path:
			add(is[0].path, "", is[0].text)
			is = is[1:]
		case len(is) == 0 || was[0].path < is[0].path:
			add(was[0].path, was[0].text, "")
			was = was[1:]
		default:
			if was[0].text != is[0].text {
				add(is[0].path, was[0].text, is[0].text)
			}
			was, is = was[1:], is[1:]
		}
	}
	return changes
}

// room is for n changes.
func (w *fieldWords) room(n int) (changes []*pb.FieldChange, made []pb.FieldChange) {
	if !w.again || len(w.made) < n {
		w.changed, w.made = make([]*pb.FieldChange, 0, n), make([]pb.FieldChange, n)
	}
	for i := range n {
		w.made[i].Reset()
	}
	return w.changed[:0], w.made
}

// effectOf says when a change of a field shows.
func effectOf(path string) pb.OptionSpec_Effect {
	switch path {
	case "spec.listen":
		return pb.OptionSpec_EFFECT_REBIND
	case "spec.handler", "spec.concurrency", "spec.access", "spec.proxyProtocol", "spec.tls":
		return pb.OptionSpec_EFFECT_NEW_CONNECTIONS
	case "spec.desiredState", "spec.pauseMode", "spec.drain":
		return pb.OptionSpec_EFFECT_LIVE
	}
	if name, ok := strings.CutPrefix(path, "spec.options."); ok {
		if o := listeners.LookupOption(name); o != nil {
			return effectToPB[o.Effect]
		}
	}
	return pb.OptionSpec_EFFECT_UNSPECIFIED
}

// wanted appends to no fields what a listener wants as JSON, in the order of the paths.
func (w *fieldWords) wanted(fields []wantedField, l *pb.Listener) []wantedField {
	put := func(path, text string) { fields = append(fields, wantedField{path, text}) }
	for k, v := range l.GetLabels() {
		put("labels."+k, textJSON(v))
	}
	for k, v := range l.GetAnnotations() {
		put("annotations."+k, textJSON(v))
	}
	for k, v := range l.GetSpec().GetOptions() {
		put("spec.options."+k, anyJSON(v.AsInterface()))
	}
	if l.GetManager() != "" {
		put("manager", textJSON(l.GetManager()))
	}
	if s := l.GetSpec(); s != nil {
		put("spec.desiredState", textJSON(desiredNames[s.GetDesiredState()]))
		put("spec.handler", w.handler(s.GetHandler()))
		put("spec.listen", textsJSON(s.GetListen()))
		if s.GetConcurrency() != pb.ListenerSpec_CONCURRENCY_UNSPECIFIED {
			put("spec.concurrency", textJSON(concurrencyNames[s.GetConcurrency()]))
		}
		if s.GetPauseMode() != pb.PauseMode_PAUSE_MODE_UNSPECIFIED {
			put("spec.pauseMode", textJSON(pauseModeNames[s.GetPauseMode()]))
		}
		if s.GetProxyProtocol() != nil {
			put("spec.proxyProtocol", messageJSON(s.GetProxyProtocol()))
		}
		if s.GetTls() != nil {
			put("spec.tls", messageJSON(s.GetTls()))
		}
		if s.GetAccess() != nil {
			put("spec.access", messageJSON(s.GetAccess()))
		}
		if s.GetDrain() != nil {
			put("spec.drain", messageJSON(s.GetDrain()))
		}
	}
	slices.SortFunc(fields, func(a, b wantedField) int { return cmp.Compare(a.path, b.path) })
	return fields
}

func (w *fieldWords) handler(h *pb.Handler) string {
	wire, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(w.wire[:0], h)
	if err != nil {
		return messageJSON(h)
	}
	w.wire = wire
	text, known := w.known[string(wire)]
	if !known {
		if text = messageJSON(h); len(w.known) < mostWords {
			if w.known == nil {
				w.known = map[string]string{}
			}
			w.known[string(wire)] = text
		}
	}
	return text
}

func messageJSON(m proto.Message) string {
	text, err := protojson.Marshal(m)
	if err != nil {
		return anyJSON(err.Error()) // a message of ours always marshals
	}
	return anyJSON(json.RawMessage(text)) // compacts, so that equal is equal
}

func anyJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func textJSON(s string) string { return string(listeners.AppendText(nil, s)) }

func textsJSON(all []string) string {
	if all == nil {
		return "null"
	}
	b := []byte{'['}
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = listeners.AppendText(b, s)
	}
	return string(append(b, ']'))
}

var desiredNames = map[pb.ListenerSpec_DesiredState]string{
	pb.ListenerSpec_DESIRED_STATE_UNSPECIFIED: "running", pb.ListenerSpec_DESIRED_STATE_RUNNING: "running",
	pb.ListenerSpec_DESIRED_STATE_PAUSED: "paused", pb.ListenerSpec_DESIRED_STATE_STOPPED: "stopped",
}

var concurrencyNames = map[pb.ListenerSpec_Concurrency]string{
	pb.ListenerSpec_CONCURRENCY_LOOP: "loop", pb.ListenerSpec_CONCURRENCY_THREAD: "thread", pb.ListenerSpec_CONCURRENCY_PROCESS: "process",
}

var pauseModeNames = map[pb.PauseMode]string{
	pb.PauseMode_PAUSE_MODE_HOLD: "hold", pb.PauseMode_PAUSE_MODE_STALL: "stall", pb.PauseMode_PAUSE_MODE_REFUSE: "refuse",
}
