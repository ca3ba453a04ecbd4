package cli

import (
	"bytes"
	"encoding/base64"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// manifestTree is the manifest of a listener: what was asked for, and nothing
// that the daemon has found out or decided.
func manifestTree(l *pb.Listener) object {
	o := object{{"apiVersion", manifestVersion}, {"kind", manifestKind}, {"name", listenerID(l.GetName())}}
	return append(o, sparseTree((&pb.Listener{
		Labels: l.GetLabels(), Annotations: l.GetAnnotations(), Spec: l.GetSpec(),
	}).ProtoReflect())...)
}

// sparseTree is a message without what is unset. Other than in the API's JSON,
// bytes that are text are text.
func sparseTree(m protoreflect.Message) object {
	o := object{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); m.Has(f) {
			o = append(o, member{f.JSONName(), sparseField(f, m.Get(f))})
		}
	}
	return o
}

func sparseField(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch {
	case f.IsMap():
		entries := map[string]protoreflect.Value{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			entries[k.String()] = v
			return true
		})
		return mapTree(entries, func(v protoreflect.Value) any { return sparseValue(f.MapValue(), v) })
	case f.IsList():
		items := make([]any, v.List().Len())
		for i := range items {
			items[i] = sparseValue(f, v.List().Get(i))
		}
		return items
	}
	return sparseValue(f, v)
}

func sparseValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch {
	case f.Kind() == protoreflect.BytesKind:
		return bytesTree(v.Bytes())
	case f.Message() != nil && f.Message().ParentFile().Package() != "google.protobuf":
		return sparseTree(v.Message())
	}
	return valueTree(f, v, true)
}

// bytesTree is text where a reader can see all of it, else base64.
func bytesTree(b []byte) any {
	hidden := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	if utf8.Valid(b) && !bytes.ContainsFunc(b, hidden) {
		return string(b)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!binary", Value: base64.StdEncoding.EncodeToString(b)}
}

// writeManifests writes documents that apply takes.
func writeManifests(b *bytes.Buffer, all []*pb.Listener) error {
	for i, l := range all {
		if i > 0 {
			b.WriteString("---\n")
		}
		if err := writeYAML(b, manifestTree(l)); err != nil {
			return err
		}
	}
	return nil
}
