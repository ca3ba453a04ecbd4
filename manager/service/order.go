package service

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sockmgr/sockmgr/listeners"
)

// An order is how a client wants things sorted: AIP-132 over the fields of the
// message. The empty order is that of names.
type order []orderTerm

type orderTerm struct {
	path fieldPath
	desc bool
}

// maxOrder bounds the fields of an order.
const maxOrder = 8

func orderFault(format string, args ...any) error {
	return &listeners.Fault{
		Reason: listeners.FilterInvalid, Message: "order_by: " + fmt.Sprintf(format, args...), Fix: "write for example: received_bytes desc, name",
	}
}

// parseOrder reads text for messages of one kind, and adds to used what it looks
// at.
func parseOrder(text string, kind protoreflect.MessageDescriptor, used fieldSet) (o order, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	terms := strings.Split(text, ",")
	if len(terms) > maxOrder || len(text) > maxFilter {
		return nil, orderFault("is too long: at most %d fields", maxOrder)
	}
	for _, term := range terms {
		words := strings.Fields(term)
		if len(words) == 0 || len(words) > 2 || len(words) == 2 && words[1] != "desc" && words[1] != "asc" {
			return nil, orderFault("%q is not a field, or one with desc", strings.TrimSpace(term))
		}
		path, err := parsePath(words[0], kind)
		if err != nil {
			return nil, orderFault("%v", err)
		}
		if why := unordered(path); why != "" {
			return nil, orderFault("%s: %s", words[0], why)
		}
		used.add(path)
		o = append(o, orderTerm{path, len(words) == 2 && words[1] == "desc"})
	}
	return o, nil
}

// unordered says why there is no order of the values that a path leads to.
func unordered(p fieldPath) string {
	for _, f := range p.steps {
		if f.IsList() {
			return string(f.Name()) + " is a list"
		}
	}
	if f := p.leaf(); f.IsMap() {
		return "is a map: name a key"
	} else if f.Kind() == protoreflect.MessageKind && f.Message().Name() != "Timestamp" && f.Message().Name() != "Duration" {
		return "has no order: name one of its fields"
	}
	return ""
}

// A sortKey is where something stands in an order. It is part of page tokens.
type sortKey struct {
	Values []sortValue `json:"v"`
	Name   string      `json:"n"` // of the resource: no two have the same
}

type sortValue struct {
	Has    bool   `json:"h,omitempty"` // what has no value comes last
	Number int64  `json:"n,omitempty"`
	Text   string `json:"t,omitempty"`
}

// keyOf reuses the memory of old.
func (o order) keyOf(name string, m protoreflect.Message, old []sortValue) sortKey {
	values := old[:0]
	for _, t := range o {
		var value sortValue
		t.path.any(m, func(v protoreflect.Value) bool {
			value = sortValueOf(v)
			return true
		})
		values = append(values, value)
	}
	return sortKey{values, name}
}

func sortValueOf(v protoreflect.Value) sortValue {
	out := sortValue{Has: true}
	switch x := v.Interface().(type) {
	case string:
		out.Text = x
	case bool:
		if x {
			out.Number = 1
		}
	case int32:
		out.Number = int64(x)
	case int64:
		out.Number = x
	case uint32:
		out.Number = int64(x)
	case uint64:
		out.Number = int64(min(x, math.MaxInt64))
	case protoreflect.EnumNumber:
		out.Number = int64(x)
	case protoreflect.Message:
		switch x := x.Interface().(type) {
		case *timestamppb.Timestamp:
			out.Number = x.AsTime().UnixNano()
		case *durationpb.Duration:
			out.Number = int64(x.AsDuration())
		}
	}
	return out
}

// compare is negative when a comes before b.
func (o order) compare(a, b sortKey) int {
	for i, t := range o {
		x, y := a.Values[i], b.Values[i]
		if x.Has != y.Has {
			if x.Has {
				return -1
			}
			return 1
		}
		n := cmp.Or(cmp.Compare(x.Number, y.Number), strings.Compare(x.Text, y.Text))
		if t.desc {
			n = -n
		}
		if n != 0 {
			return n
		}
	}
	return strings.Compare(a.Name, b.Name)
}

// at makes the text of a key for a page token.
func (k sortKey) at() string {
	text, _ := json.Marshal(k) // numbers and strings: it cannot fail
	return string(text)
}

// parseKey is nil of an empty text: the first page.
func (o order) parseKey(at string) (*sortKey, error) {
	if at == "" {
		return nil, nil
	}
	var k sortKey
	if err := json.Unmarshal([]byte(at), &k); err != nil || len(k.Values) != len(o) {
		return nil, badToken()
	}
	return &k, nil
}
