package service

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// comparer returns how the value of a field compares with want; false is that it
// does not.
func comparer(f protoreflect.FieldDescriptor, want string) (func(protoreflect.Value) (int, bool), error) {
	switch f.Kind() {
	case protoreflect.StringKind:
		if isName(f) && !strings.Contains(want, "/") {
			return func(v protoreflect.Value) (int, bool) { return compareID(v.String(), want), true }, nil
		}
		return func(v protoreflect.Value) (int, bool) { return compareText(v.String(), want), true }, nil
	case protoreflect.EnumKind:
		return compareEnum(f, want)
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(want)
		if err != nil {
			err = badValue(strconv.Quote(want) + " is not true or false")
		}
		return func(v protoreflect.Value) (int, bool) {
			if v.Bool() == b {
				return 0, true
			}
			return 1, true
		}, err
	case protoreflect.MessageKind:
		return compareMessage(f, want)
	default:
		n, err := strconv.ParseFloat(want, 64)
		if err != nil || math.IsNaN(n) {
			err = badValue(strconv.Quote(want) + " is not a number")
		}
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

// isName reports whether a field has names of resources: listeners/web.
func isName(f protoreflect.FieldDescriptor) bool {
	switch f.Name() {
	case "name", "listener", "resource":
		return f.Kind() == protoreflect.StringKind
	}
	return false
}

// compareID compares the name of a resource with an id, which people write: web.
func compareID(name, want string) int {
	if compareText(name, want) == 0 {
		return 0
	}
	return compareText(name[strings.LastIndex(name, "/")+1:], want)
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

func compareMessage(f protoreflect.FieldDescriptor, want string) (func(protoreflect.Value) (int, bool), error) {
	switch f.Message().FullName() {
	case "google.protobuf.Timestamp":
		t, err := time.Parse(time.RFC3339, want)
		if err != nil {
			err = badValue(strconv.Quote(want) + ` is not a time: write "2026-01-31T12:00:00Z"`)
		}
		return func(v protoreflect.Value) (int, bool) {
			ts, ok := v.Message().Interface().(*timestamppb.Timestamp)
			return ts.AsTime().Compare(t), ok && ts.IsValid()
		}, err
	case "google.protobuf.Duration":
		d, err := time.ParseDuration(want)
		if err != nil {
			err = badValue(strconv.Quote(want) + ` is not a duration: write "30s", "500ms" or "2m"`)
		}
		return func(v protoreflect.Value) (int, bool) {
			dp, ok := v.Message().Interface().(*durationpb.Duration)
			return cmp.Compare(dp.AsDuration(), d), ok
		}, err
	case "google.protobuf.Value":
		return func(v protoreflect.Value) (int, bool) {
			value, ok := v.Message().Interface().(*structpb.Value)
			return compareOption(value, want), ok
		}, nil
	}
	return nil, badValue("name one of its fields")
}

// compareOption compares the value of an option as what both may be taken for:
// numbers, times, or else text.
func compareOption(v *structpb.Value, want string) int {
	if _, ok := v.GetKind().(*structpb.Value_NumberValue); ok {
		if n, err := strconv.ParseFloat(want, 64); err == nil {
			return cmp.Compare(v.GetNumberValue(), n)
		}
	}
	text := fmt.Sprint(v.AsInterface())
	a, errA := time.ParseDuration(text)
	if b, errB := time.ParseDuration(want); errA == nil && errB == nil {
		return cmp.Compare(a, b)
	}
	return compareText(text, want)
}
