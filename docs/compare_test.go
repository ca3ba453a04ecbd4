package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// volatile are the columns of tables, and the keys of inspect, whose values are
// other ones each time.
var volatile = []string{
	"AGE", "IDLE", "ID", "FD", "COOKIE", "UID", "IN", "OUT", "RTT", "TO SEND",
	"pid", "uid", "cookie", "inode", "descriptor (fileno)", "started", "instance", "host", "kernel", "go", "commit",
	"age", "idle", "rtt", "to be sent", "open files limit",
}

var changing = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT`), "DATE"},
	{regexp.MustCompile(`\(\w+ ago\)`), "(AGE ago)"},
	{regexp.MustCompile(`\bpid[ =]\d+`), "pid N"},
	{regexp.MustCompile(`\buid[ :]\d+`), "uid N"},
	{regexp.MustCompile(`(?m)^(socket|connection) [0-9a-f]+$`), "$1 ID"},
	{regexp.MustCompile(`:(32[7-9]\d\d|3[3-9]\d{3}|[45]\d{4}|6[0-5]\d{3})\b`), ":PORT"},
	{regexp.MustCompile(`[ \t\r]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
}

var gaps = regexp.MustCompile(`\s{2,}`)

// plain takes out of a text what is not compared.
func plain(text string) string {
	var head []string
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		cells := gaps.Split(strings.TrimSpace(line), -1)
		switch {
		case len(cells) > 2 && strings.ToUpper(line) == line && strings.ContainsAny(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
			head = cells
		case len(cells) == len(head):
			for j := range cells {
				if slices.Contains(volatile, head[j]) {
					cells[j] = "*"
				}
			}
			lines[i] = strings.Join(cells, " ")
		case len(cells) == 2 && slices.Contains(volatile, cells[0]):
			lines[i] = " " + cells[0] + " *"
		default:
			head = nil
		}
	}
	text = strings.Join(lines, "\n")
	for _, c := range changing {
		text = c.what.ReplaceAllString(text, c.with)
	}
	return text
}

// pattern returns what a text must match to be what the page says.
func pattern(want string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for i, line := range strings.Split(plain(want), "\n") {
		switch {
		case line == "...":
			b.WriteString(`(?:\n?.*)*`)
			continue
		case i > 0:
			b.WriteString(`\n?`)
		}
		b.WriteString(`(?m:^)` + strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `(?m:$)`)
	}
	b.WriteString(`\n*\z`)
	return regexp.MustCompile(b.String())
}

func TestPattern(t *testing.T) {
	tests := []struct {
		want, printed string
		match         bool
	}{
		{"", "", true},
		{"", "text", false},
		{"web   running tcp://127.0.0.1:8080", "web running  tcp://127.0.0.1:8080\n", true},
		{"web running tcp://127.0.0.1:8080", "web running tcp://127.0.0.1:8081", false},
		{"echo running tcp://127.0.0.1:40001", "echo running tcp://127.0.0.1:51234", true},
		{"echo running tcp://127.0.0.1:60999", "echo running tcp://127.0.0.1:32768", true},
		{"a\n...\nz", "a\nb\nc\nz", true},
		{"a\n...\nz", "a\nz", true},
		{"a\n...\nz", "a\nb\nyz", false},
		{"...\nz", "y\nz", true},
		{"a\nb", "a\nb\nc", false},
		{"a\nb", "ab", false},
		{"held by ... (pid 812)", "held by nginx (pid 9)", true},
		{"NAME  STATE  AGE\nweb  up  1s", "NAME  STATE  AGE\nweb  up  44m", true},
		{"NAME  STATE  AGE\nweb  up  1s", "NAME  STATE  AGE\nweb  down  1s", false},
		{"  inode  12\n  state  up", "  inode  7\n  state  up", true},
	}
	for _, test := range tests {
		if got := pattern(test.want).MatchString(plain(test.printed)); got != test.match {
			t.Errorf("page %q, printed %q: match is %v", test.want, test.printed, got)
		}
	}
}
