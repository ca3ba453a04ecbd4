package daemon

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// Whatever anybody has put into a message, a name or a value: one record is one
// line that begins as lines do, and none of it is for the terminal.
func TestLogScrubbed(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u009b31m\u202etxt.exe\u2028\x00\xff\x7f\U000e0041 ok"
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		w := newLogWriter(&out)
		log := newLogger(config{LogLevel: "info", LogFormat: format}, w)
		log.Info("message "+evil, "value", evil, "line", "one\n2026-01-01T00:00:00.000Z [INFO]  sockmgr: forged")
		w.Close()
		for _, r := range strings.ReplaceAll(out.String(), "\n", "") {
			if !unicode.IsPrint(r) {
				t.Errorf("%s: %q in %q", format, r, out.String())
			}
		}
		for i, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
			if err := json.Unmarshal([]byte(line), &map[string]any{}); format == "json" && err != nil {
				t.Errorf("%q: %v", line, err)
			}
			if i > 0 {
				t.Errorf("%s: a line of its own: %q", format, line)
			}
		}
	}
}

// A stack has a line for each call, unless something before it has newlines.
func TestLogStack(t *testing.T) {
	for value, lines := range map[string]int{"none": 6, "evil stack=\ngoroutine 1\nFORGED": 1} {
		var out bytes.Buffer
		w := newLogWriter(&out)
		newLogger(config{LogLevel: "info", LogFormat: "text"}, w).Info("panic", "what", value, "stack", "goroutine 1\n\tmain.go:1\nend")
		w.Close()
		if n := strings.Count(out.String(), "\n"); n != lines {
			t.Errorf("%d lines, not %d: %s", n, lines, out.String())
		}
	}
}
