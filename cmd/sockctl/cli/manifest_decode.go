package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

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
