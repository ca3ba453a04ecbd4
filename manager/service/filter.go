package service

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

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
	f, _, err := parseQuery(text, kind)
	return f, err
}

// parseQuery is parseFilter. It also returns the fields that the filter looks
// at, so that not more has to be read than those.
func parseQuery(text string, kind protoreflect.MessageDescriptor) (filter, fieldSet, error) {
	c := compiler{kind, fieldSet{}}
	f, err := c.parse(text)
	return f, c.used, err
}

// fieldSet has paths of fields of a message: queue, queue.drops.
type fieldSet map[string]bool

// add adds a path and what it leads through.
func (s fieldSet) add(p fieldPath) {
	path := ""
	for _, f := range p.steps {
		path += string(f.Name())
		s[path] = true
		path += "."
	}
}

// A compiler makes filters of text.
type compiler struct {
	kind protoreflect.MessageDescriptor
	used fieldSet
}

func (c *compiler) parse(text string) (filter, error) {
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
	return c.compile(parsed.GetExpr())
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
	case strings.Contains(at.Message(), "trailing"):
		return fmt.Sprintf("column %d: it goes on after a whole expression; put a value such as \"10ms\" into quotes", at.Position().Column)
	}
	return fmt.Sprintf("column %d: %s", at.Position().Column, at.Message())
}

// compile turns a node of the tree into a filter.
func (c *compiler) compile(e *expr.Expr) (filter, error) {
	call := e.GetCallExpr()
	if call == nil {
		return nil, filterFault("every part must compare a field, such as status.state = running")
	}
	args := call.GetArgs()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr:
		a, err := c.compile(args[0])
		if err != nil {
			return nil, err
		}
		b, err := c.compile(args[1])
		if call.GetFunction() == filtering.FunctionOr {
			return func(m protoreflect.Message) bool { return a(m) || b(m) }, err
		}
		return func(m protoreflect.Message) bool { return a(m) && b(m) }, err
	case filtering.FunctionNot:
		a, err := c.compile(args[0])
		return func(m protoreflect.Message) bool { return !a(m) }, err
	}
	if len(args) != 2 {
		return nil, filterFault("there is no function " + call.GetFunction())
	}
	return c.compare(call.GetFunction(), args[0], args[1])
}

// tests are what the operators make of a comparison.
var tests = map[string]func(int) bool{
	"=": func(n int) bool { return n == 0 }, ":": func(n int) bool { return n == 0 }, "!=": func(n int) bool { return n != 0 },
	"<": func(n int) bool { return n < 0 }, "<=": func(n int) bool { return n <= 0 },
	">": func(n int) bool { return n > 0 }, ">=": func(n int) bool { return n >= 0 },
}

// compare compiles a comparison. Of a list, and of a field of messages in a
// list, it is enough that one compares.
func (c *compiler) compare(op string, left, right *expr.Expr) (filter, error) {
	text, ok := textOf(left)
	if !ok {
		return nil, filterFault("the left side of " + op + " must be a field")
	}
	want, ok := textOf(right)
	if !ok {
		return nil, filterFault("the right side of " + op + " must be a value")
	}
	test := tests[op]
	if test == nil {
		return nil, filterFault("there is no function " + op)
	}
	path, err := parsePath(text, c.kind)
	if err != nil {
		return nil, filterFault(err.Error())
	}
	c.used.add(path)
	if op == ":" && (want == "*" || path.last().IsMap() && !path.keyed) {
		return path.has(want), nil
	}
	if path.last().IsMap() && !path.keyed {
		return nil, filterFault(text + " is a map: name a key, as in " + text + ".KEY, or ask whether it has one with " + text + ":KEY")
	}
	compare, err := comparer(path.leaf(), want)
	if err != nil {
		return nil, filterFault(text + ": " + err.Error())
	}
	return func(m protoreflect.Message) bool {
		return path.any(m, func(v protoreflect.Value) bool {
			n, ok := compare(v)
			return ok && test(n)
		})
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
