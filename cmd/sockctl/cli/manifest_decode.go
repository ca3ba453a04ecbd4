package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
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

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A decoder makes a listener of one document. It goes by the descriptor of the
// message: a field added to the API needs no line here.
type decoder struct {
	file   string
	at     map[string]place // by field path
	faults []fault
}

// manifestFields are what a manifest may say of a listener beside apiVersion
// and kind. Never written to.
var manifestFields = []string{"name", "labels", "annotations", "spec"}

// listenerForm is that of an id, as CreateListenerRequest has it.
var listenerForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func (d *decoder) place(n *yaml.Node) place { return place{d.file, n.Line, n.Column} }

func (d *decoder) fault(n *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, fault{d.place(n), fmt.Sprintf(format, args...)})
}

// listener decodes a document.
func (d *decoder) listener(n *yaml.Node) *pb.Listener {
	l := &pb.Listener{}
	m := l.ProtoReflect()
	head := map[string]string{"apiVersion": manifestVersion, "kind": manifestKind}
	seen := map[string]*yaml.Node{}
	ok := d.pairs(n, "the document", func(name string, key, value *yaml.Node) {
		f := fieldOf(m.Descriptor(), name)
		if f != nil {
			name = string(f.Name())
		}
		if !d.once(seen, name, name, key) {
			return
		}
		if want := head[name]; want != "" {
			if got, ok := d.text(value, name); ok && got != want {
				d.fault(value, "%s is %s; want %s", name, quoteText(got), want)
			}
			return
		}
		switch {
		case name == "name":
			l.Name = d.name(key, value)
		case slices.Contains(manifestFields, name):
			d.field(m, f, name, key, value)
		case f != nil:
			d.fault(key, "%s is not for a manifest: the daemon sets it", f.JSONName())
		default:
			d.unknown(key, name, append([]string{"apiVersion", "kind"}, manifestFields...))
		}
	})
	if !ok {
		return l
	}
	for _, name := range []string{"apiVersion", "kind", "name"} {
		if seen[name] == nil {
			d.fault(n, "%s is missing", strings.TrimSuffix(name+": "+head[name], ": "))
		}
	}
	return l
}

// name decodes the name, whole or bare.
func (d *decoder) name(key, value *yaml.Node) string {
	d.at["name"] = d.place(key)
	s, ok := d.text(value, "name")
	s = listenerID(s)
	if ok && !listenerForm.MatchString(s) {
		d.fault(value, "name %.80q is not a name: "+
			"a lower-case letter or digit, then up to 62 lower-case letters, digits, dots, underscores or dashes", s)
	}
	return s
}

// fieldOf finds a field by its JSON name or its own, nil for none.
func fieldOf(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := m.Fields().ByJSONName(name); f != nil {
		return f
	}
	return m.Fields().ByName(protoreflect.Name(name))
}

// pairs runs each for every key of a mapping.
func (d *decoder) pairs(n *yaml.Node, path string, each func(name string, key, value *yaml.Node)) bool {
	node := resolved(n)
	if node.Kind != yaml.MappingNode {
		d.fault(n, "%s is %s; want a mapping, name: value", path, kindText(node))
		return false
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := resolved(node.Content[i])
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fault(node.Content[i], "a key of %s is %s; want text", path, kindText(key))
		case key.ShortTag() == "!!merge":
			d.fault(key, "<< is not known in a manifest: write the fields out")
		default:
			each(key.Value, node.Content[i], node.Content[i+1])
		}
	}
	return true
}

// once reports whether a key is there for the first time.
func (d *decoder) once(seen map[string]*yaml.Node, name, path string, key *yaml.Node) bool {
	if first := seen[name]; first != nil {
		d.fault(key, "%s is given twice, first at %s", path, d.place(first))
		return false
	}
	seen[name] = key
	return true
}

func (d *decoder) unknown(key *yaml.Node, path string, names []string) {
	name := path[strings.LastIndex(path, ".")+1:]
	if near := nearest(name, names); near != "" {
		d.fault(key, "%s is not a field; did you mean %s?", path, near)
		return
	}
	d.fault(key, "%s is not a field; want %s", path, orList(names))
}

// message decodes the fields of m.
func (d *decoder) message(m protoreflect.Message, path string, n *yaml.Node) {
	seen := map[string]*yaml.Node{}
	d.pairs(n, path, func(name string, key, value *yaml.Node) {
		f := fieldOf(m.Descriptor(), name)
		if f == nil {
			d.unknown(key, path+"."+name, fieldNames(m.Descriptor()))
			return
		}
		inside := path + "." + string(f.Name())
		if !d.once(seen, string(f.Name()), path+"."+f.JSONName(), key) {
			return
		}
		if o := f.ContainingOneof(); o != nil && m.WhichOneof(o) != nil {
			d.fault(key, "%s is %s already; want one %s", path, m.WhichOneof(o).JSONName(), o.Name())
			return
		}
		d.field(m, f, inside, key, value)
	})
}

func fieldNames(m protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range m.Fields().Len() {
		names = append(names, m.Fields().Get(i).JSONName())
	}
	return names
}

// field decodes one field. Nothing at all after the colon is as if it were
// not written, but for a kind of handler: that would be easy to misread.
func (d *decoder) field(m protoreflect.Message, f protoreflect.FieldDescriptor, path string, key, n *yaml.Node) {
	d.at[path] = d.place(key)
	if isNull(resolved(n)) {
		if f.ContainingOneof() != nil {
			d.fault(n, "%s is nothing; write {} for one without fields", path)
		}
		return
	}
	switch {
	case f.IsMap():
		d.mapping(m, f, path, n)
	case f.IsList():
		d.list(m, f, path, n)
	case f.Message() != nil && f.Message().ParentFile().Package() != "google.protobuf":
		d.message(m.Mutable(f).Message(), path, n)
	default:
		if v, ok := d.value(f, path, n, m.NewField(f)); ok {
			m.Set(f, v)
		}
	}
}

func (d *decoder) mapping(m protoreflect.Message, f protoreflect.FieldDescriptor, path string, n *yaml.Node) {
	seen := map[string]*yaml.Node{}
	d.pairs(n, path, func(name string, key, value *yaml.Node) {
		inside := path + "." + name
		if !d.once(seen, name, inside, key) {
			return
		}
		d.at[inside] = d.place(key)
		entries := m.Mutable(f).Map()
		if v, ok := d.value(f.MapValue(), inside, value, entries.NewValue()); ok {
			entries.Set(protoreflect.ValueOfString(name).MapKey(), v)
		}
	})
}

func (d *decoder) list(m protoreflect.Message, f protoreflect.FieldDescriptor, path string, n *yaml.Node) {
	node := resolved(n)
	if node.Kind != yaml.SequenceNode {
		d.fault(n, "%s is %s; want a list, such as [a, b]", path, kindText(node))
		return
	}
	items := m.Mutable(f).List()
	for i, item := range node.Content {
		inside := fmt.Sprintf("%s[%d]", path, i)
		d.at[inside] = d.place(item)
		if v, ok := d.value(f, inside, item, items.NewElement()); ok {
			items.Append(v)
		}
	}
}

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
