package cli

import (
	"bytes"
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

func TestAge(t *testing.T) {
	a := &app{env: Env{Now: func() time.Time { return now }}}
	for d, want := range map[time.Duration]string{
		-time.Hour:                    "0s",
		0:                             "0s",
		3*time.Second + 999e6:         "3s",
		59 * time.Second:              "59s",
		time.Minute:                   "1m",
		2*time.Hour + 59*time.Minute:  "2h",
		4*24*time.Hour + 23*time.Hour: "4d",
		400 * 24 * time.Hour:          "400d",
	} {
		same(t, d.String(), a.age(ago(d)), want)
	}
	same(t, "no time", a.age(nil), "-")
	same(t, "when", a.when(ago(time.Minute)), "2026-01-02T15:03:05Z (1m ago)")
	same(t, "when to come", a.when(ago(-time.Minute)), "2026-01-02T15:05:05Z")
	same(t, "never", a.when(nil), "")
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0B", 1023: "1023B", 1024: "1.0KiB", 1536: "1.5KiB", 1048575: "1.0MiB", 4 << 20: "4.0MiB",
		5 << 30: "5.0GiB", math.MaxUint64: "16.0EiB",
	} {
		same(t, "size", size(n), want)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 日本":         "plain é 日本",
		"\x1b[31mred\x1b[0m": `\x1b[31mred\x1b[0m`,
		"a\tb\nc\rd":         `a\tb\nc\rd`,
		"\u202egnp.exe":      `\u202egnp.exe`, // turns the direction of writing
		"bad\xff":            "bad\uFFFD",
	} {
		same(t, "clean", clean(in), want)
	}
}

func TestValueText(t *testing.T) {
	for want, v := range map[string]*structpb.Value{
		"-": nil, "null": structpb.NewNullValue(), "true": structpb.NewBoolValue(true),
		"4194304": structpb.NewNumberValue(4194304), "0.5": structpb.NewNumberValue(0.5),
		"30s": structpb.NewStringValue("30s"), `""`: structpb.NewStringValue(""),
	} {
		same(t, "value", valueText(v), want)
	}
}

func TestTable(t *testing.T) {
	tb := newTable("NAME", "STATE", "X")
	tb.row("a", "", "1")
	tb.row("longer", "tab\there", "")
	var b bytes.Buffer
	tb.write(&b)
	same(t, "table", b.String(), `
NAME    STATE      X
a       -          1
longer  tab\there  -
`)
}

func TestNames(t *testing.T) {
	for s, want := range map[string][2]bool{
		"1f": {true, false}, "ffffffffffffffff": {true, false}, "1ffffffffffffffff": {}, "web": {}, "-1": {}, "+1": {}, "1_0": {},
		"": {}, "10.0.0.7:80": {false, true}, "[::1]:80": {false, true}, "[fe80::1%eth0]:80": {false, true}, "10.0.0.7": {}, "a:80": {},
	} {
		if got := [2]bool{isCookie(s), isPeer(s)}; got != want {
			t.Errorf("%q: cookie, peer %v, want %v", s, got, want)
		}
	}
	same(t, "quote", quote(`a"b\c`), `"a\"b\\c"`)
	for message, want := range map[string]bool{
		"no listener is called web": true, "web: x": true, "listeners/web is": true, "no web.": true, "webb": false, "a-web": false,
	} {
		if mentions(message, "web") != want {
			t.Errorf("mentions(%q) is %v", message, !want)
		}
	}
}
