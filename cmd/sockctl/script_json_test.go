//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// step is one step of a path: .name, ["a.name"], [0], or .length at the end.
var step = regexp.MustCompile(`^(?:\.([A-Za-z_][A-Za-z0-9_]*)|\["([^"]+)"\]|\[([0-9]+)\])`)

// lookUp returns what is at a path of a JSON text.
func lookUp(text, path string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var at any
	if err := d.Decode(&at); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	for rest := path; rest != ""; {
		m := step.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("%s is not a path", path)
		}
		rest = rest[len(m[0]):]
		var ok bool
		if at, ok = walk(at, m[1]+m[2], m[3]); !ok {
			return nil, fmt.Errorf("nothing is at %s", strings.TrimSuffix(path, rest))
		}
	}
	return at, nil
}

func walk(at any, name, index string) (any, bool) {
	switch at := at.(type) {
	case map[string]any:
		if v, ok := at[name]; ok || name != "length" {
			return v, ok
		}
		return json.Number(strconv.Itoa(len(at))), true
	case []any:
		if name == "length" {
			return json.Number(strconv.Itoa(len(at))), true
		}
		i, err := strconv.Atoi(index)
		if err != nil || i >= len(at) {
			return nil, false
		}
		return at[i], true
	}
	return nil, false
}

// show returns text as it is, and all else as JSON.
func show(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: [!] json stdout|stderr|FILE PATH [VALUE]")
	}
	got, err := lookUp(ts.ReadFile(args[0]), args[1])
	if err != nil && !neg {
		ts.Fatalf("%v", err)
	}
	same := err == nil && (len(args) == 2 || show(got) == args[2])
	if same == neg {
		ts.Fatalf("%s is %s", args[1], show(got))
	}
}

func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: get VAR stdout|stderr|FILE PATH")
	}
	got, err := lookUp(ts.ReadFile(args[1]), args[2])
	ts.Check(err)
	ts.Setenv(args[0], show(got))
}

// cmdEventually is for what the daemon has no way to tell, such as that it has
// heard of the end of a connection.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: eventually PATH VALUE COMMAND...")
	}
	for end := time.Now().Add(patience); ; {
		err := ts.Exec(args[2], args[3:]...)
		var got any
		if err == nil {
			got, err = lookUp(ts.ReadFile("stdout"), args[0])
		}
		if err == nil && show(got) == args[1] {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s is %s to the end, %v", args[0], show(got), err)
		}
	}
}
