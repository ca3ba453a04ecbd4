package listeners

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Type is what the value of an option is.
type Type uint8

// The types. In JSON and on the wire a duration is a string such as "30s",
// bytes are a number, and both are understood in either form: 30 is thirty
// seconds, "4MiB" is 4194304.
const (
	Null Type = iota // no value: the default
	Bool
	Int
	Bytes
	Duration
	String
	Raw // of a raw option: a number, or bytes as 0x01ff
)

// A Value is the value of an option. It is comparable; the zero Value is Null.
type Value struct {
	typ  Type
	n    int64  // Bool: 0 or 1; Duration: nanoseconds
	text string // String; Raw, when it is bytes
}

// BoolValue returns a Value of type Bool.
func BoolValue(b bool) Value {
	if b {
		return Value{typ: Bool, n: 1}
	}
	return Value{typ: Bool}
}

// IntValue returns a Value of type Int.
func IntValue(n int64) Value { return Value{typ: Int, n: n} }

// BytesValue returns a Value of type Bytes.
func BytesValue(n int64) Value { return Value{typ: Bytes, n: n} }

// DurationValue returns a Value of type Duration.
func DurationValue(d time.Duration) Value { return Value{typ: Duration, n: int64(d)} }

// StringValue returns a Value of type String.
func StringValue(s string) Value { return Value{typ: String, text: s} }

// NumberValue returns a Value for a number as JSON has it; it must be whole.
func NumberValue(f float64) (Value, error) {
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return Value{}, fmt.Errorf("%v is not a whole number", f)
	}
	return IntValue(int64(f)), nil
}

// Type returns the type.
func (v Value) Type() Type { return v.typ }

// Int returns the number that is set in the kernel or the daemon: 0 or 1 for
// Bool, nanoseconds for Duration.
func (v Value) Int() int64 { return v.n }

// Any returns what the value is in JSON: nil, a bool, an int64 or a string.
func (v Value) Any() any {
	switch v.typ {
	case Bool:
		return v.n != 0
	case Int, Bytes:
		return v.n
	case Duration:
		return time.Duration(v.n).String()
	case Raw:
		if v.text == "" {
			return v.n
		}
		return v.text
	case String:
		return v.text
	default:
		return nil
	}
}

// String returns the value for people.
func (v Value) String() string {
	if v.typ == Null {
		return "default"
	}
	return fmt.Sprint(v.Any())
}

// MarshalJSON returns v.Any as JSON.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal(v.Any()) }

// UnmarshalJSON takes null, true, false, a whole number or a string. Option
// Parse gives it the type it should have.
func (v *Value) UnmarshalJSON(data []byte) (err error) {
	var x any
	if err := json.Unmarshal(data, &x); err != nil {
		return err
	}
	switch x := x.(type) {
	case nil:
		*v = Value{}
	case bool:
		*v = BoolValue(x)
	case float64:
		*v, err = NumberValue(x)
	case string:
		*v = StringValue(x)
	default:
		err = fmt.Errorf("%s is not a value of an option", data)
	}
	return err
}

// as gives v the type t, if that can be.
func (v Value) as(t Type) (Value, error) {
	switch {
	case v.typ == t || v.typ == Null:
		return v, nil
	case t == Bytes && v.typ == Int:
		return BytesValue(v.n), nil
	case t == Duration && v.typ == Int:
		if v.n > math.MaxInt64/int64(time.Second) || v.n < -math.MaxInt64/int64(time.Second) {
			return Value{}, fmt.Errorf("%d seconds is out of range", v.n)
		}
		return DurationValue(time.Duration(v.n) * time.Second), nil
	case t == Raw && v.typ == Int:
		return Value{typ: Raw, n: v.n}, nil
	case t == String && v.typ == Int: // a mode of 660 loses nothing
		return StringValue(strconv.FormatInt(v.n, 10)), nil
	case v.typ == String:
		return parseText(v.text, t)
	}
	return Value{}, fmt.Errorf("%v is not %s", v, typeWords[t])
}

var typeWords = map[Type]string{
	Bool:     "yes or no: write true or false",
	Int:      "a whole number",
	Bytes:    "a number of bytes: write 65536, 64KiB or 4MiB",
	Duration: "a time: write 30s, 500ms or 2m",
	String:   "text",
	Raw:      "a whole number, nor bytes in the order of memory: write 65536 or 0x00000100",
}

func parseText(s string, t Type) (Value, error) {
	switch t {
	case Bool:
		if b, err := strconv.ParseBool(s); err == nil {
			return BoolValue(b), nil
		}
	case Int:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return IntValue(n), nil
		}
	case Bytes:
		if n, ok := parseBytes(s); ok {
			return BytesValue(n), nil
		}
	case Duration:
		if d, err := time.ParseDuration(s); err == nil {
			return DurationValue(d), nil
		}
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return IntValue(n).as(Duration)
		}
	case Raw:
		if v, ok := parseRaw(s); ok {
			return v, nil
		}
	case String:
		return StringValue(s), nil
	default: // Null is nobody's type
	}
	return Value{}, fmt.Errorf("%q is not %s", s, typeWords[t])
}

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"K", 1 << 10},
	{"M", 1 << 20},
	{"G", 1 << 30},
	{"B", 1},
	{"", 1},
}

func parseBytes(s string) (int64, bool) {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.factor {
			return 0, false
		}
		return n * u.factor, true
	}
	return 0, false
}
