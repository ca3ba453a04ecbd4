package cli

import (
	"bytes"
	"strings"
	"text/tabwriter"
)

// A table is rows of cells under a head.
type table struct {
	rows [][]string
}

// newTable starts a table; the words of head are its columns.
func newTable(head ...string) *table { return &table{rows: [][]string{head}} }

// row adds a row. An empty cell is filled, so that columns can be counted.
func (t *table) row(cells ...string) {
	filled := make([]string, len(cells))
	for i, c := range cells {
		if filled[i] = clean(c); c == "" {
			filled[i] = none
		}
	}
	t.rows = append(t.rows, filled)
}

// write lays the table out.
func (t *table) write(b *bytes.Buffer) { layOut(b, "", t.rows) }

// A section is a heading and, under it, what things are.
type section struct {
	title string
	rows  [][]string
}

// add adds a line, unless there is nothing to say.
func (s *section) add(key, value string) {
	if value != "" {
		s.rows = append(s.rows, []string{clean(key), clean(value)})
	}
}

// sections writes those that have something in them, a blank line between.
func sections(b *bytes.Buffer, all ...*section) {
	first := true
	for _, s := range all {
		if len(s.rows) == 0 {
			continue
		}
		if !first {
			b.WriteByte('\n')
		}
		first = false
		b.WriteString(clean(s.title) + "\n")
		layOut(b, "  ", s.rows)
	}
}

func layOut(b *bytes.Buffer, margin string, rows [][]string) {
	w := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	for _, cells := range rows {
		_, err := w.Write([]byte(margin + strings.Join(cells, "\t") + "\n"))
		must(err) // a bytes.Buffer takes everything
	}
	must(w.Flush())
}
