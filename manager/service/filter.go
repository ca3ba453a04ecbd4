package service

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sockmgr/sockmgr/listeners"
)

// A filter decides which messages a client wants: AIP-160 over the fields of
// the message, by their proto or JSON names. It is a func so that the zero
// filter, nil, matches all.
type filter func(protoreflect.Message) bool

// match applies the filter.
func (f filter) match(m proto.Message) bool { return f == nil || f(m.ProtoReflect()) }

// Bounds of a filter: of its text, and of parentheses in parentheses.
const (
	maxFilter = 16 << 10
	maxDepth  = 100
)

func filterFault(format string) error {
	return &listeners.Fault{
		Reason: listeners.FilterInvalid, Message: "filter: " + format,
		Fix: `write for example: status.state = failed AND labels.tier = "edge"`,
	}
}

// parseFilter compiles text for messages of one kind.
func parseFilter(text string, kind protoreflect.MessageDescriptor) (filter, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if len(text) > maxFilter || strings.Count(text, "(") > maxDepth {
		return nil, filterFault(fmt.Sprintf("is too long: at most %d bytes and %d parentheses", maxFilter, maxDepth))
	}
	var p filtering.Parser
	p.Init(text)
	parsed, err := p.Parse()
	if err != nil {
		return nil, filterFault(parseWords(err))
	}
	return compile(parsed.GetExpr(), kind)
}

// parseWords is the innermost of the parser's errors. Each of them has the whole
// filter in its text, once for every level of nesting.
func parseWords(err error) string {
	words := err
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		words = inner
	}
	at, ok := words.(interface {
		Message() string
		Position() filtering.Position
	})
	switch {
	case errors.Is(words, io.EOF):
		return "it ends in the middle"
	case !ok:
		return words.Error()
	}
	return fmt.Sprintf("column %d: %s", at.Position().Column, at.Message())
}

// compile turns a node of the tree into a filter.
func compile(e *expr.Expr, kind protoreflect.MessageDescriptor) (filter, error) {
	call := e.GetCallExpr()
	if call == nil {
		return nil, filterFault("every part must compare a field, such as status.state = running")
	}
	args := call.GetArgs()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr:
		a, err := compile(args[0], kind)
		if err != nil {
			return nil, err
		}
		b, err := compile(args[1], kind)
		if call.GetFunction() == filtering.FunctionOr {
			return func(m protoreflect.Message) bool { return a(m) || b(m) }, err
		}
		return func(m protoreflect.Message) bool { return a(m) && b(m) }, err
	case filtering.FunctionNot:
		a, err := compile(args[0], kind)
		return func(m protoreflect.Message) bool { return !a(m) }, err
	}
	if len(args) != 2 {
		return nil, filterFault("there is no function " + call.GetFunction())
	}
	return compileComparison(call.GetFunction(), args[0], args[1], kind)
}

func compileComparison(op string, left, right *expr.Expr, kind protoreflect.MessageDescriptor) (filter, error) {
	path, ok := textOf(left)
	if !ok {
		return nil, filterFault("the left side of " + op + " must be a field")
	}
	want, ok := textOf(right)
	if !ok {
		return nil, filterFault("the right side of " + op + " must be a value")
	}
	fields, key, err := resolve(path, kind)
	if err != nil {
		return nil, err
	}
	last := fields[len(fields)-1]
	compare, err := comparer(last, key, want)
	if err != nil {
		return nil, filterFault(path + ": " + err.Error())
	}
	test := map[string]func(int) bool{
		"=": func(n int) bool { return n == 0 }, ":": func(n int) bool { return n == 0 }, "!=": func(n int) bool { return n != 0 },
		"<": func(n int) bool { return n < 0 }, "<=": func(n int) bool { return n <= 0 },
		">": func(n int) bool { return n > 0 }, ">=": func(n int) bool { return n >= 0 },
	}[op]
	if test == nil {
		return nil, filterFault("there is no function " + op)
	}
	return func(m protoreflect.Message) bool {
		for _, f := range fields[:len(fields)-1] {
			m = m.Get(f).Message()
		}
		if last.IsList() {
			list := m.Get(last).List()
			for i := range list.Len() {
				if n, ok := compare(list.Get(i)); ok && test(n) {
					return true
				}
			}
			return false
		}
		n, ok := compare(m.Get(last))
		return ok && test(n)
	}, nil
}

// textOf returns a path or a constant as text.
func textOf(e *expr.Expr) (string, bool) {
	switch {
	case e.GetIdentExpr() != nil:
		return e.GetIdentExpr().GetName(), true
	case e.GetSelectExpr() != nil:
		head, ok := textOf(e.GetSelectExpr().GetOperand())
		return head + "." + e.GetSelectExpr().GetField(), ok
	case e.GetConstExpr() != nil:
		switch c := e.GetConstExpr().GetConstantKind().(type) {
		case *expr.Constant_StringValue:
			return c.StringValue, true
		case *expr.Constant_Int64Value:
			return strconv.FormatInt(c.Int64Value, 10), true
		case *expr.Constant_DoubleValue:
			return strconv.FormatFloat(c.DoubleValue, 'g', -1, 64), true
		case *expr.Constant_BoolValue:
			return strconv.FormatBool(c.BoolValue), true
		}
	}
	return "", false
}

// resolve walks a path of field names; key is what follows the name of a map.
func resolve(path string, kind protoreflect.MessageDescriptor) (fields []protoreflect.FieldDescriptor, key string, err error) {
	names := strings.Split(path, ".")
	for i, name := range names {
		f := kind.Fields().ByName(protoreflect.Name(name))
		if f == nil {
			f = kind.Fields().ByJSONName(name)
		}
		if f == nil {
			return nil, "", filterFault(path + ": " + string(kind.Name()) + " has no field " + name)
		}
		fields = append(fields, f)
		rest := names[i+1:]
		switch {
		case f.IsMap() && len(rest) > 0:
			return fields, strings.Join(rest, "."), nil
		case len(rest) == 0 && !f.IsMap():
			return fields, "", nil
		case len(rest) == 0 || f.IsList() || f.Kind() != protoreflect.MessageKind:
			return nil, "", filterFault(path + " cannot be compared")
		}
		kind = f.Message()
	}
	return nil, "", filterFault(path + " cannot be compared")
}

// comparer returns how the value of a field compares with want.
func comparer(f protoreflect.FieldDescriptor, key, want string) (func(protoreflect.Value) (int, bool), error) {
	if f.IsMap() {
		compare, err := comparer(f.MapValue(), "", want)
		return func(v protoreflect.Value) (int, bool) {
			value := v.Map().Get(protoreflect.ValueOfString(key).MapKey())
			if !value.IsValid() {
				return 0, false
			}
			return compare(value)
		}, err
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		return func(v protoreflect.Value) (int, bool) { return compareText(v.String(), want), true }, nil
	case protoreflect.EnumKind:
		return compareEnum(f, want)
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(want)
		return func(v protoreflect.Value) (int, bool) {
			if v.Bool() == b {
				return 0, true
			}
			return 1, true
		}, err
	case protoreflect.MessageKind:
		return compareTime(f, want)
	default:
		n, err := strconv.ParseFloat(want, 64)
		return func(v protoreflect.Value) (int, bool) {
			switch x := v.Interface().(type) {
			case int32:
				return cmp.Compare(float64(x), n), true
			case int64:
				return cmp.Compare(float64(x), n), true
			case uint32:
				return cmp.Compare(float64(x), n), true
			case uint64:
				return cmp.Compare(float64(x), n), true
			}
			return 0, false
		}, err
	}
}

// compareText knows * at either end (AIP-160).
func compareText(s, want string) int {
	head, headStar := strings.CutPrefix(want, "*")
	tail, tailStar := strings.CutSuffix(head, "*")
	switch {
	case headStar && tailStar && strings.Contains(s, tail),
		headStar && !tailStar && strings.HasSuffix(s, head),
		!headStar && tailStar && strings.HasPrefix(s, tail):
		return 0
	}
	return strings.Compare(s, want)
}

type badValue string

func (b badValue) Error() string { return string(b) }

// compareEnum takes a value's name in any case, with or without its prefix.
func compareEnum(f protoreflect.FieldDescriptor, want string) (func(protoreflect.Value) (int, bool), error) {
	values := f.Enum().Values()
	var names []string
	for i := range values.Len() {
		name := string(values.Get(i).Name())
		short := strings.TrimPrefix(name, enumPrefix(f.Enum()))
		if strings.EqualFold(want, name) || strings.EqualFold(want, short) {
			n := values.Get(i).Number()
			return func(v protoreflect.Value) (int, bool) { return cmp.Compare(v.Enum(), n), true }, nil
		}
		if i > 0 {
			names = append(names, strings.ToLower(short))
		}
	}
	return nil, badValue(want + " is not one of " + strings.Join(names, ", "))
}

// enumPrefix is what buf's style puts before every value: STATE_ for State.
func enumPrefix(e protoreflect.EnumDescriptor) string {
	return strings.TrimSuffix(string(e.Values().Get(0).Name()), "UNSPECIFIED")
}

func compareTime(f protoreflect.FieldDescriptor, want string) (func(protoreflect.Value) (int, bool), error) {
	switch f.Message().FullName() {
	case "google.protobuf.Timestamp":
		t, err := time.Parse(time.RFC3339, want)
		return func(v protoreflect.Value) (int, bool) {
			ts, ok := v.Message().Interface().(*timestamppb.Timestamp)
			return ts.AsTime().Compare(t), ok && ts.IsValid()
		}, err
	case "google.protobuf.Duration":
		d, err := time.ParseDuration(want)
		return func(v protoreflect.Value) (int, bool) {
			dp, ok := v.Message().Interface().(*durationpb.Duration)
			return cmp.Compare(dp.AsDuration(), d), ok
		}, err
	}
	return nil, badValue("name one of its fields")
}
