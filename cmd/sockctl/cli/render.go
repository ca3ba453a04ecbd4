package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// A tree is what JSON and YAML are both printed from: object, []any, string,
// bool, int64, uint64, float64 or nil.

// object is a map that keeps its order.
type object []member

type member struct {
	key   string
	value any
}

// tree returns m as the contract prints it: 64-bit integers are numbers,
// enum values are lower case without their prefix, and scalars, lists and
// maps are there even when zero or empty. The rest is as in protojson.
func tree(m proto.Message) object { return messageTree(m.ProtoReflect(), false) }

// list returns a list of messages under one key.
func list[M proto.Message](key string, messages []M) object {
	items := make([]any, len(messages))
	for i, m := range messages {
		items[i] = tree(m)
	}
	return object{{key, items}}
}

// messageTree is tree; sparse leaves out what is unset, as in a spec, where
// unset is not zero.
func messageTree(m protoreflect.Message, sparse bool) object {
	sparse = sparse || m.Descriptor().FullName() == "sockmgr.v1.ListenerSpec"
	var o object
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) && (sparse || f.HasPresence()) {
			continue
		}
		o = append(o, member{f.JSONName(), fieldTree(f, m.Get(f), sparse)})
	}
	return o
}

func fieldTree(f protoreflect.FieldDescriptor, v protoreflect.Value, sparse bool) any {
	switch {
	case f.IsList():
		items := make([]any, v.List().Len())
		for i := range items {
			items[i] = valueTree(f, v.List().Get(i), sparse)
		}
		return items
	case f.IsMap():
		m := map[string]protoreflect.Value{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			m[k.String()] = v
			return true
		})
		return mapTree(m, func(v protoreflect.Value) any { return valueTree(f.MapValue(), v, sparse) })
	}
	return valueTree(f, v, sparse)
}

// mapTree returns a map in the order of its keys.
func mapTree[V any](m map[string]V, item func(V) any) object {
	o := object{}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		o = append(o, member{key, item(m[key])})
	}
	return o
}

func valueTree(f protoreflect.FieldDescriptor, v protoreflect.Value, sparse bool) any {
	if f.Enum() != nil {
		return enumWord(f.Enum(), v.Enum())
	}
	if f.Message() == nil {
		if b, ok := v.Interface().([]byte); ok {
			return base64.StdEncoding.EncodeToString(b)
		}
		return plain(v.Interface())
	}
	if f.Message().ParentFile().Package() != "google.protobuf" {
		return messageTree(v.Message(), sparse)
	}
	if value, ok := v.Message().Interface().(*structpb.Value); ok {
		return optionTree(value)
	}
	// Timestamps, durations and field masks are strings in protojson.
	var s any
	data, err := protojson.Marshal(v.Message().Interface())
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil { // outside the range that JSON can say
		return fmt.Sprint(v.Message().Interface())
	}
	return plain(s)
}

// optionTree returns the value of an option.
func optionTree(v *structpb.Value) any { return plain(v.AsInterface()) }

// plain brings a Go value into the types of a tree.
func plain(v any) any {
	switch v := v.(type) {
	case int32:
		return int64(v)
	case uint32:
		return uint64(v)
	case float32:
		return plain(float64(v))
	case float64:
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0): // JSON has none
			return strconv.FormatFloat(v, 'g', -1, 64)
		case v == math.Trunc(v) && math.Abs(v) <= biggest:
			return int64(v)
		}
		return v
	case map[string]any:
		return mapTree(v, plain)
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = plain(v[i])
		}
		return items
	}
	return v
}

// enumWord returns an enum value in lower case, without the prefix that is
// the type's name: STATE_HALF_CLOSED of State is half_closed.
func enumWord(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v := e.Values().ByNumber(n)
	if v == nil { // of a newer daemon
		return strconv.Itoa(int(n))
	}
	var prefix strings.Builder
	for i, r := range string(e.Name()) {
		if i > 0 && 'A' <= r && r <= 'Z' {
			prefix.WriteByte('_')
		}
		prefix.WriteRune(r)
	}
	prefix.WriteByte('_')
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), strings.ToUpper(prefix.String())))
}

// word is enumWord of a generated enum.
func word(e protoreflect.Enum) string { return enumWord(e.Descriptor(), e.Number()) }

// writeJSON writes a tree; an empty indent puts all on one line.
func writeJSON(b *bytes.Buffer, v any, indent string) {
	var raw bytes.Buffer
	appendJSON(&raw, v)
	compact := escaped(raw.Bytes(), escapeJSON)
	if indent == "" {
		b.Write(compact)
		return
	}
	must(json.Indent(b, compact, "", indent))
}

// escaped writes what a terminal may take for more than text as JSON and YAML
// escape it: their encoders leave C1, DEL and marks that turn the direction. Such
// runes stand between quotes only.
func escaped(text []byte, escape func(out []byte, r rune) []byte) []byte {
	if !bytes.ContainsFunc(text, hidden) {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if hidden(r) {
			out = escape(out, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

func escapeJSON(out []byte, r rune) []byte {
	for _, unit := range utf16.Encode([]rune{r}) {
		out = fmt.Appendf(out, `\u%04x`, unit)
	}
	return out
}

func escapeYAML(out []byte, r rune) []byte { return fmt.Appendf(out, `\U%08x`, r) }

// hidden is what is not shown, or moves what is; not the line ends of the output.
func hidden(r rune) bool { return unprintable(r) && r != '\n' && r != '\t' }

func appendJSON(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case object:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			appendJSON(b, m.key)
			b.WriteByte(':')
			appendJSON(b, m.value)
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			appendJSON(b, v[i])
		}
		b.WriteByte(']')
	default:
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(false)
		must(enc.Encode(v))
		b.Truncate(b.Len() - 1) // the newline Encode ends with
	}
}

// writeYAML writes a tree.
func writeYAML(b *bytes.Buffer, v any) error {
	node, err := yamlNode(v)
	if err != nil {
		return err
	}
	var raw bytes.Buffer
	enc := yaml.NewEncoder(&raw)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(node), enc.Close()); err != nil {
		return err
	}
	b.Write(escaped(raw.Bytes(), escapeYAML))
	return nil
}

func yamlNode(v any) (*yaml.Node, error) {
	var node yaml.Node
	switch v := v.(type) {
	case object:
		node.Kind = yaml.MappingNode
		for _, m := range v {
			key, err := yamlNode(m.key)
			if err != nil {
				return nil, err
			}
			value, err := yamlNode(m.value)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, key, value)
		}
	case []any:
		node.Kind = yaml.SequenceNode
		for i := range v {
			item, err := yamlNode(v[i])
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, item)
		}
	case *yaml.Node:
		return v, nil
	default:
		// Encode knows which strings must be quoted to stay strings, but for
		// those that it would put into a block and begin with space: that reads
		// as indentation.
		// And but for those with what is escaped, which must be quoted.
		if s, ok := v.(string); ok && (strings.Contains(s, "\n") && strings.ContainsAny(s[:1], " \t\n") || strings.ContainsFunc(s, hidden)) {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}, nil
		}
		return &node, node.Encode(v)
	}
	return &node, nil
}
