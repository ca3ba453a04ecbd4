package listeners_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sockmgr/sockmgr/listeners"
)

func TestParseSpec(t *testing.T) {
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprintf("tcp://127.0.0.1:%d", i+1)
	}
	text, echo := listeners.StringValue, listeners.Echo{}
	for _, tt := range []struct {
		name    string
		listen  []string
		handler listeners.HandlerSpec
		options map[string]listeners.Value
		want    []string // fields of what is wrong
	}{
		{"good", []string{"tcp://127.0.0.1:0", "udp://127.0.0.1:0"}, echo, map[string]listeners.Value{"backlog": text("7"), "linger": {}}, nil},
		{"port 0 twice", []string{"tcp://127.0.0.1:0", "tcp://127.0.0.1:0"}, echo, nil, nil},
		{"most addresses", many[:256], echo, nil, nil},
		{"too many addresses", many, echo, nil, []string{"spec.listen"}},
		{"empty", nil, nil, nil, []string{"spec.listen", "spec.handler"}},
		{"bad address", []string{"tcp://127.0.0.1:1", "x"}, echo, nil, []string{"spec.listen[1]"}},
		{"twice", []string{"tcp://127.0.0.1:1", "tcp://[::ffff:127.0.0.1]:1"}, echo, nil, []string{"spec.listen[1]"}},
		{"path twice", []string{"unix:///a", "unix:///b/../a"}, echo, nil, []string{"spec.listen[1]"}},
		{"http on udp", []string{"udp://127.0.0.1:1", "unixgram:///a"}, &listeners.HTTP{}, nil, []string{"spec.listen[0]", "spec.listen[1]"}},
		{"long reply on udp", []string{"udp://127.0.0.1:1"}, &listeners.Reply{Payload: make([]byte, 65508)}, nil, []string{"spec.listen[0]"}},
		{"empty reply", []string{"tcp://127.0.0.1:1"}, &listeners.Reply{}, nil, []string{"spec.handler.reply.payload"}},
		{
			"options",
			[]string{"unix:///a"},
			echo,
			map[string]listeners.Value{
				"bcklog": text("1"), "backlog": text("0"), "tcp.no_delay": listeners.BoolValue(true), "idle_timeout": text("soon"), "unix.mode": text("0999"), "max_connections": listeners.BoolValue(true),
			},
			[]string{"spec.options.backlog", "spec.options.bcklog", "spec.options.idle_timeout", "spec.options.max_connections", "spec.options.tcp.no_delay", "spec.options.unix.mode"},
		},
	} {
		s, err := listeners.ParseSpec(tt.listen, tt.handler, tt.options)
		var got []string
		for _, v := range listeners.Violations(err) {
			got = append(got, v.Field)
		}
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v: %v", tt.name, got, err)
		}
		if err == nil && len(s.Listen) != len(tt.listen) {
			t.Errorf("%s: %+v", tt.name, s)
		}
	}
	_, err := listeners.ParseOption("keepalive", listeners.BoolValue(true), 0)
	if !errors.Is(err, listeners.OptionUnknown) || !strings.Contains(err.Error(), "did you mean tcp.keepalive?") {
		t.Error(err)
	}
}

// Values as people, files and JSON write them.
func TestParseOption(t *testing.T) {
	text, number := listeners.StringValue, listeners.IntValue
	for _, tt := range []struct {
		option string
		value  listeners.Value
		want   any // nil: refused
	}{
		{"backlog", text("128"), int64(128)},
		{"backlog", number(128), int64(128)},
		{"backlog", number(1 << 31), nil},
		{"backlog", text(" 128"), nil},
		{"backlog", text("1e3"), nil},
		{"backlog", text(""), nil},
		{"tcp.no_delay", text("false"), false},
		{"tcp.no_delay", number(1), nil},
		{"tcp.no_delay", text("on"), nil},
		{"receive_buffer_bytes", text("4MiB"), int64(4 << 20)},
		{"receive_buffer_bytes", text("4 MB"), int64(4e6)},
		{"receive_buffer_bytes", text("64K"), int64(64 << 10)},
		{"receive_buffer_bytes", text("100B"), int64(100)},
		{"receive_buffer_bytes", number(7), int64(7)},
		{"receive_buffer_bytes", text("-1"), nil},
		{"receive_buffer_bytes", text("4GiB"), nil},
		{"receive_buffer_bytes", text("99999999999GiB"), nil},
		{"receive_buffer_bytes", text("MiB"), nil},
		{"idle_timeout", text("1m30s"), "1m30s"},
		{"idle_timeout", text("90"), "1m30s"},
		{"idle_timeout", number(90), "1m30s"},
		{"idle_timeout", text("-1s"), nil},
		{"idle_timeout", text("9999999999999"), nil},
		{"idle_timeout", number(1 << 62), nil},
		{"idle_timeout", text("366d"), nil},
		{"idle_timeout", text("8760h0m1s"), nil},
		{"tcp.keepalive_idle", text("999ms"), nil},
		{"unix.mode", text("0640"), "0640"},
		{"unix.mode", text("640"), "640"},
		{"unix.mode", number(640), "640"},
		{"unix.mode", text("u=rw"), nil},
		{"unix.mode", text("1777"), nil},
		{"unix.mode", text("-1"), nil},
		{"unix.mode", text(""), nil},
		{"unix.mode", listeners.BoolValue(true), nil},
	} {
		v, err := listeners.ParseOption(tt.option, tt.value, 0)
		if (err == nil) != (tt.want != nil) || err == nil && v.Any() != tt.want {
			t.Errorf("%s=%v: %v, %v", tt.option, tt.value, v, err)
		}
	}
	for _, f := range []float64{1.5, 1e300, -1e300} {
		if v, err := listeners.NumberValue(f); err == nil {
			t.Errorf("%v is %v", f, v)
		}
	}
}

// A Spec is read back as it was saved, with every option of the table.
func TestSpecSaved(t *testing.T) {
	handlers := []listeners.HandlerSpec{
		listeners.Echo{},
		listeners.Discard{},
		&listeners.Reply{Payload: []byte("\x00\xff"), KeepOpen: true},
		&listeners.HTTP{Status: 204, Headers: map[string]string{"A": "b"}, Body: []byte("\xff")},
	}
	for _, h := range handlers {
		want := spec(t, h, "", "tcp://[::]:0", "unix:///a b")
		options := map[string]listeners.Value{}
		for _, o := range listeners.Options {
			if least, greatest, ok := o.Range(); ok && o.Networks&want.Class() != 0 {
				v := listeners.IntValue(greatest)
				switch o.Type {
				case listeners.Duration:
					v = listeners.DurationValue(time.Duration(greatest))
				case listeners.Bytes:
					v = listeners.BytesValue(least)
				default:
				}
				options[o.Name] = v
			}
		}
		options["tcp.no_delay"], options["unix.mode"] = listeners.BoolValue(false), listeners.StringValue("0600")
		want.Options = options
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got listeners.Spec
		if err := json.Unmarshal(data, &got); err != nil || !got.Equal(want) || !want.Equal(got) || !reflect.DeepEqual(got.Options, want.Options) {
			t.Errorf("%s: %+v, %v", data, got, err)
		}
	}
}

func TestSpecWith(t *testing.T) {
	a := spec(t, listeners.Echo{}, "backlog=5", "tcp://127.0.0.1:0")
	b := a.With("backlog", listeners.IntValue(6)).With("tcp.no_delay", listeners.BoolValue(false))
	c := b.With("backlog", listeners.Value{})
	if a.Options["backlog"].Int() != 5 || len(a.Options) != 1 || b.Options["backlog"].Int() != 6 || len(b.Options) != 2 || len(c.Options) != 1 {
		t.Errorf("%v %v %v", a.Options, b.Options, c.Options)
	}
	if a.Equal(b) || !a.Equal(b.With("tcp.no_delay", listeners.Value{}).With("backlog", listeners.IntValue(5))) {
		t.Error("not equal")
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(`{"listen":["tcp://[::]:80"],"handler":{"kind":"echo","config":{}},"options":{"backlog":5,"idle_timeout":"3s","linger":null}}`))
	f.Add([]byte(`{"listen":["unix:///a"],"handler":{"kind":"http","config":{"status":200,"headers":{"a":"b"},"body":"eA=="}},"options":{"unix.mode":"0600"}}`))
	f.Add([]byte(`{"listen":["udp://:1"],"handler":{"kind":"reply","config":{"payload":"eA=="}},"options":{"receive_buffer_bytes":"4MiB"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, b listeners.Spec
		if json.Unmarshal(data, &a) != nil {
			return
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		if err := json.Unmarshal(text, &b); err != nil || !a.Equal(b) || !reflect.DeepEqual(a.Listen, b.Listen) {
			t.Errorf("%s is %s: %v", data, text, err)
		}
	})
}

func FuzzValue(f *testing.F) {
	for _, s := range []string{`null`, `true`, `1`, `-9007199254740992`, `1e3`, `"30s"`, `"4MiB"`, `"0660"`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v listeners.Value
		if v.UnmarshalJSON(data) != nil {
			return
		}
		for _, o := range listeners.Options {
			parsed, err := o.Parse(v)
			if err != nil {
				continue
			}
			again, err := o.Parse(parsed)
			if err != nil || again != parsed {
				t.Errorf("%s: %v is %v, %v", o.Name, parsed, again, err)
			}
			text, err := json.Marshal(parsed)
			if err != nil {
				t.Fatal(err)
			}
			var saved listeners.Value
			if err := json.Unmarshal(text, &saved); err != nil {
				t.Errorf("%s: %s: %v", o.Name, text, err)
				continue
			}
			if saved, err := o.Parse(saved); err != nil || saved != parsed {
				t.Errorf("%s: %s of %s is %v, %v", o.Name, text, data, saved, err)
			}
			if typed, err := o.Parse(listeners.StringValue(parsed.String())); parsed.Type() != listeners.Null && (err != nil || typed != parsed) {
				t.Errorf("%s: printed as %v, that is %v, %v", o.Name, parsed, typed, err)
			}
		}
	})
}
