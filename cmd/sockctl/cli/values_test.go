package cli

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

func TestParseValue(t *testing.T) {
	for in, want := range map[string]*structpb.Value{
		"true":             structpb.NewBoolValue(true),
		"false":            structpb.NewBoolValue(false),
		"True":             structpb.NewStringValue("True"),
		"null":             structpb.NewNullValue(),
		"0":                structpb.NewNumberValue(0),
		"-7":               structpb.NewNumberValue(-7),
		"1024":             structpb.NewNumberValue(1024),
		"9007199254740992": structpb.NewNumberValue(9007199254740992),
		"9007199254740993": structpb.NewStringValue("9007199254740993"), // a float64 would round it
		"0660":             structpb.NewStringValue("0660"),
		"+1":               structpb.NewStringValue("+1"),
		"-0":               structpb.NewStringValue("-0"),
		"1.5":              structpb.NewStringValue("1.5"),
		"30s":              structpb.NewStringValue("30s"),
		"4MiB":             structpb.NewStringValue("4MiB"),
		"":                 structpb.NewStringValue(""),
		"a=b":              structpb.NewStringValue("a=b"),
		"\xff":             structpb.NewStringValue("\uFFFD"), // the API carries UTF-8 only
	} {
		if got := parseValue(in); !proto.Equal(got, want) {
			t.Errorf("parseValue(%q) is %v, want %v", in, got, want)
		}
	}
}

func TestParsePairs(t *testing.T) {
	got, err := parsePairs("--label", []string{"a=1", "b=", "c=d=e"})
	if err != nil || len(got) != 3 || got["a"] != "1" || got["b"] != "" || got["c"] != "d=e" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, tt := range []struct {
		pairs []string
		want  string
	}{
		{[]string{"a"}, `--label "a": want name=value`},
		{[]string{"=a"}, `--label "=a": want name=value`},
		{[]string{""}, `--label "": want name=value`},
		{[]string{"a=1", "a=2"}, `--label a is given twice`},
	} {
		_, err := parsePairs("--label", tt.pairs)
		if f := asFailure(err); f == nil || f.exit != exitUsage || f.message != tt.want {
			t.Errorf("%q: %v, want %s", tt.pairs, err, tt.want)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{"a=1", "a=true", "tcp.no_delay=null", "a", "=", "a=30s", "a=-9007199254740993", "a=\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseOptions("option", []string{s})
		if err != nil {
			if f := asFailure(err); f == nil || f.exit != exitUsage || strings.Index(s, "=") > 0 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		name, text, _ := strings.Cut(s, "=")
		v := m[name]
		if len(m) != 1 || v == nil {
			t.Fatalf("%q is %v", s, m)
		}
		if _, err := proto.Marshal(v); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if _, err := protojson.Marshal(v); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		// What is shown of a value is what was written.
		if n, ok := v.GetKind().(*structpb.Value_NumberValue); ok && math.Abs(n.NumberValue) > biggest {
			t.Fatalf("%q is %v", s, n)
		}
		if got := valueText(v); text != "" && got != strings.ToValidUTF8(text, "\uFFFD") {
			t.Fatalf("%q is shown as %q", s, got)
		}
	})
}
