package service

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sockmgr/sockmgr/listeners"
)

// A fieldPath leads from a message to values in it, through messages, lists of
// messages, and into a map: status.bound.port, labels.tier.
type fieldPath struct {
	steps []protoreflect.FieldDescriptor
	keyed bool   // the last step is a map, and the path goes on to one of its keys
	key   string // which may have dots in it
}

// parsePath takes the proto and the JSON names of fields.
func parsePath(text string, kind protoreflect.MessageDescriptor) (p fieldPath, err error) {
	names := strings.Split(text, ".")
	for i, name := range names {
		f := kind.Fields().ByName(protoreflect.Name(name))
		if f == nil {
			f = kind.Fields().ByJSONName(name)
		}
		if f == nil {
			return p, noField(text, strings.Join(names[:i], "."), name, kind)
		}
		p.steps = append(p.steps, f)
		switch rest := names[i+1:]; {
		case f.IsMap():
			p.keyed, p.key = len(rest) > 0, strings.Join(rest, ".")
			return p, nil
		case len(rest) == 0:
			return p, nil
		case f.Kind() != protoreflect.MessageKind || isValue(f):
			return p, fmt.Errorf("%s: %s has no fields", text, f.Name())
		}
		kind = f.Message()
	}
	return p, errors.New("is empty")
}

// isValue tells the messages that stand for one value.
func isValue(f protoreflect.FieldDescriptor) bool {
	return f.Kind() == protoreflect.MessageKind && f.Message().ParentFile().Package() == "google.protobuf"
}

// noField names the field that was probably meant: one of that name further
// down, or one that is spelled nearly so.
func noField(text, before, name string, kind protoreflect.MessageDescriptor) error {
	var names []string
	near := ""
	fields := kind.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		names = append(names, string(f.Name()), f.JSONName())
		if near == "" && f.Kind() == protoreflect.MessageKind && !f.IsMap() && !isValue(f) {
			below := f.Message().Fields()
			if below.ByName(protoreflect.Name(name)) != nil || below.ByJSONName(name) != nil {
				near = string(f.Name()) + "." + name
			}
		}
	}
	if near == "" {
		near = listeners.Nearest(name, names)
	}
	message := fmt.Sprintf("%s: %s has no field %s", text, kind.Name(), name)
	switch {
	case near == "":
		return errors.New(message)
	case before != "":
		near = before + "." + near
	}
	return fmt.Errorf("%s; did you mean %s?", message, near)
}

func (p fieldPath) last() protoreflect.FieldDescriptor { return p.steps[len(p.steps)-1] }

// leaf describes the values.
func (p fieldPath) leaf() protoreflect.FieldDescriptor {
	if p.keyed {
		return p.last().MapValue()
	}
	return p.last()
}

// any reports whether visit takes one of the values that the path leads to. A
// field that is not set has none, if that can be told from zero.
func (p fieldPath) any(m protoreflect.Message, visit func(protoreflect.Value) bool) bool {
	return p.from(0, m, visit)
}

func (p fieldPath) from(i int, m protoreflect.Message, visit func(protoreflect.Value) bool) bool {
	f, last := p.steps[i], i == len(p.steps)-1
	switch {
	case f.IsList():
		list := m.Get(f).List()
		for n := range list.Len() {
			if last && visit(list.Get(n)) || !last && p.from(i+1, list.Get(n).Message(), visit) {
				return true
			}
		}
		return false
	case f.HasPresence() && !m.Has(f):
		return false
	case p.keyed && last:
		v := m.Get(f).Map().Get(protoreflect.ValueOfString(p.key).MapKey())
		return v.IsValid() && visit(v)
	case last:
		return visit(m.Get(f))
	}
	return p.from(i+1, m.Get(f).Message(), visit)
}

// has is the operator that asks whether something is there (AIP-160): FIELD:*,
// and MAP:KEY.
func (p fieldPath) has(want string) filter {
	return func(m protoreflect.Message) bool {
		return p.any(m, func(v protoreflect.Value) bool {
			f := p.last()
			switch {
			case f.IsMap() && !p.keyed && want == "*":
				return v.Map().Len() > 0
			case f.IsMap() && !p.keyed:
				return v.Map().Has(protoreflect.ValueOfString(want).MapKey())
			case f.IsMap(), f.IsList(), f.HasPresence():
				return true // any has looked
			}
			return !v.Equal(f.Default())
		})
	}
}
