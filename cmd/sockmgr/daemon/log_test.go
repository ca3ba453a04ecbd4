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
			if i > 0 && !strings.HasPrefix(line, " ") {
				t.Errorf("%s: a line of its own: %q", format, line)
			}
		}
	}
}
