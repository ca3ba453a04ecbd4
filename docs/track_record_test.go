package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`\\./([a-z/]+) ((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)(?:/([a-z_]+))?`")
	commitID  = regexp.MustCompile(`^[0-9a-f]{7}$`)
	day       = regexp.MustCompile(`^\d{4}-\d\d-\d\d$`)
)

// TestTrackRecord checks that every bug in the record has a date, newest first, a
// commit, and something that holds it: a test or a benchmark that is there.
func TestTrackRecord(t *testing.T) {
	page, err := os.ReadFile("track-record.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, last := 0, "9999"
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| 20") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 5 {
			t.Errorf("%d cells, want 5: %s", len(cells), line)
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !day.MatchString(cells[0]) || cells[0] > last {
			t.Errorf("%s is no date, or is after %s", cells[0], last)
		}
		last = cells[0]
		if !commitID.MatchString(cells[4]) {
			t.Errorf("%q is no commit: %s", cells[4], line)
		}
		if !namedTest.MatchString(cells[3]) {
			t.Errorf("nothing holds it: %s", line)
		}
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
	for _, m := range namedTest.FindAllStringSubmatch(string(page), -1) {
		checkTest(t, m[1], m[2], m[3])
	}
}

// checkTest looks for a test in the sources of its package, and for the script of
// a part of TestScript.
func checkTest(t *testing.T, dir, name, part string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found = found || strings.Contains(string(text), "\nfunc "+name+"(")
	}
	if !found {
		t.Errorf("%s has no %s", dir, name)
	}
	if part != "" {
		if _, err := os.Stat(filepath.Join("..", dir, "testdata", "script", part+".txtar")); err != nil {
			t.Error(err)
		}
	}
}
