package cli

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// value decodes one value; a message is decoded into what is made for it.
func (d *decoder) value(f protoreflect.FieldDescriptor, path string, n *yaml.Node, made protoreflect.Value) (v protoreflect.Value, ok bool) {
	node := resolved(n)
	switch f.Kind() {
	case protoreflect.StringKind:
		s, ok := d.text(n, path)
		return protoreflect.ValueOfString(s), ok
	case protoreflect.BytesKind:
		b, ok := d.bytes(n, path)
		return protoreflect.ValueOfBytes(b), ok
	case protoreflect.BoolKind:
		if node.Kind != yaml.ScalarNode || node.ShortTag() != "!!bool" {
			d.fault(n, "%s is %s; want true or false", path, kindText(node))
			return v, false
		}
		return protoreflect.ValueOfBool(strings.EqualFold(node.Value, "true")), true
	case protoreflect.EnumKind:
		return d.enum(f.Enum(), path, n)
	case protoreflect.Uint32Kind:
		u, err := strconv.ParseUint(node.Value, 10, 32)
		if err != nil || node.ShortTag() != "!!int" || strconv.FormatUint(u, 10) != node.Value {
			d.fault(n, "%s is %s; want a whole number from 0 to %d", path, valueWords(node), uint32(math.MaxUint32))
			return v, false
		}
		return protoreflect.ValueOfUint32(uint32(u)), true
	case protoreflect.MessageKind:
		if made.Message().Descriptor().FullName() == "google.protobuf.Value" {
			option, ok := d.option(n, path)
			return protoreflect.ValueOfMessage(option.ProtoReflect()), ok
		}
		if f.Message().ParentFile().Package() == "google.protobuf" {
			return made, d.wellKnown(made.Message().Interface(), path, n)
		}
		d.message(made.Message(), path, n)
		return made, true
	default: // the API has none in a spec
		d.fault(n, "%s cannot be written in a manifest by this release", path)
		return v, false
	}
}

// wellKnown decodes what is text in JSON. A duration may be written as in
// options: 1m30s.
func (d *decoder) wellKnown(m proto.Message, path string, n *yaml.Node) bool {
	s, ok := d.text(n, path)
	if !ok {
		return false
	}
	if _, ok := m.(*durationpb.Duration); ok {
		length, err := time.ParseDuration(s)
		if err != nil {
			d.fault(n, "%s is %s; want a duration such as 30s or 1m30s", path, quoteText(s))
			return false
		}
		proto.Merge(m, durationpb.New(length))
		return true
	}
	data, err := json.Marshal(s)
	if err == nil {
		err = protojson.Unmarshal(data, m)
	}
	if err != nil {
		d.fault(n, "%s is %s; want a %s", path, quoteText(s), strings.ToLower(string(m.ProtoReflect().Descriptor().Name())))
	}
	return err == nil
}

func (d *decoder) text(n *yaml.Node, path string) (string, bool) {
	node := resolved(n)
	if isText(node) {
		return node.Value, true
	}
	example := ""
	if node.Kind == yaml.ScalarNode && node.Value != "" && node.ShortTag() != "!!binary" {
		example = ": write " + strconv.Quote(node.Value)
	}
	d.fault(n, "%s is %s; want text%s", path, kindText(node), example)
	return "", false
}

func (d *decoder) bytes(n *yaml.Node, path string) ([]byte, bool) {
	node := resolved(n)
	if node.Kind != yaml.ScalarNode || node.ShortTag() != "!!binary" {
		s, ok := d.text(n, path)
		return []byte(s), ok
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(node.Value), ""))
	if err != nil {
		d.fault(n, "%s is !!binary and not base64: %s", path, err)
	}
	return data, err == nil
}

func (d *decoder) enum(e protoreflect.EnumDescriptor, path string, n *yaml.Node) (v protoreflect.Value, ok bool) {
	s, ok := d.text(n, path)
	if !ok {
		return v, false
	}
	var words []string
	for i := range e.Values().Len() {
		value := e.Values().Get(i)
		if value.Number() == 0 { // is to leave it out
			continue
		}
		word := enumWord(e, value.Number())
		if s == word || s == string(value.Name()) {
			return protoreflect.ValueOfEnum(value.Number()), true
		}
		words = append(words, word)
	}
	d.fault(n, "%s is %s; want %s", path, quoteText(s), orList(words))
	return v, false
}

// option decodes the value of an option. As on the command line, only a
// number in its usual form is one: 0660 is text, so that its zero arrives.
func (d *decoder) option(n *yaml.Node, path string) (*structpb.Value, bool) {
	node := resolved(n)
	if isText(node) {
		return structpb.NewStringValue(node.Value), true
	}
	if node.Kind == yaml.ScalarNode {
		switch node.ShortTag() {
		case "!!null":
			return structpb.NewNullValue(), true
		case "!!bool":
			return structpb.NewBoolValue(strings.EqualFold(node.Value, "true")), true
		case "!!int":
			return parseValue(node.Value), true
		case "!!float":
			var x float64
			if err := node.Decode(&x); err == nil && !math.IsInf(x, 0) && !math.IsNaN(x) {
				return structpb.NewNumberValue(x + 0), true // no negative zero: it has no whole number
			}
		}
	}
	d.fault(n, "%s is %s; want true, false, null, a number or text", path, valueWords(node))
	return nil, false
}

// resolved follows an alias.
func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// isText reports whether a scalar is text. A date is: nothing in the API is one.
func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && slices.Contains([]string{"!!str", "!!timestamp", "!!merge"}, n.ShortTag())
}

// kindText says what a node is.
func kindText(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode {
		return "a mapping"
	}
	if n.Kind == yaml.SequenceNode {
		return "a list"
	}
	switch tag := n.ShortTag(); tag {
	case "!!str", "!!timestamp", "!!merge":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return n.Value
	case "!!null":
		return "nothing"
	default:
		return tag
	}
}

// valueWords is a scalar as it is written, or else what it is.
func valueWords(n *yaml.Node) string {
	switch {
	case isText(n):
		return quoteText(clip(n.Value))
	case n.Kind == yaml.ScalarNode && n.Value != "":
		return clip(n.Value)
	}
	return kindText(n)
}
