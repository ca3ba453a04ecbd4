package cli

import (
	"bytes"
	"fmt"
	"io"
)

// format is a way to print data; it checks itself as a flag.
type format string

const formats = "table, wide, json, yaml or name"

// String returns the format's name.
func (f *format) String() string { return string(*f) }

// Type is what help calls the value.
func (f *format) Type() string { return "FORMAT" }

// Set takes the name of a format.
func (f *format) Set(s string) error {
	switch s {
	case "table", "wide", "json", "yaml", "name":
		*f = format(s)
		return nil
	}
	return fmt.Errorf("want %s", formats)
}

// A view is one answer in all the forms it can be printed in.
type view struct {
	tree  func() any                       // json, yaml
	names []string                         // name
	text  func(w *bytes.Buffer, wide bool) // table, wide
}

// print writes v in the form asked for.
func (a *app) print(v view) error { return a.printWith(v, "  ") }

// printLine is print for one of a stream: JSON is one object a line.
func (a *app) printLine(v view) error { return a.printWith(v, "") }

func (a *app) printWith(v view, indent string) error {
	var b bytes.Buffer
	switch a.output {
	case "json":
		writeJSON(&b, v.tree(), indent)
		b.WriteByte('\n')
	case "yaml":
		if a.docs++; a.docs > 1 {
			b.WriteString("---\n")
		}
		if err := writeYAML(&b, v.tree()); err != nil {
			return err
		}
	case "name":
		for _, name := range v.names {
			b.WriteString(clean(name) + "\n")
		}
	default:
		v.text(&b, a.output == "wide")
	}
	if _, err := a.env.Stdout.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// structured reports whether the answer is for a program.
func (a *app) structured() bool { return a.output == "json" || a.output == "yaml" }

// note tells people something that is neither data nor an error.
func (a *app) note(format string, args ...any) {
	if a.output == "json" {
		if len(a.notes) < mostNotes { // a stream may have no end
			a.notes = append(a.notes, fmt.Sprintf(format, args...))
		}
		return
	}
	a.tell("note: " + clean(fmt.Sprintf(format, args...)) + "\n")
}

// tell writes to stderr. Nowhere is left to report one that takes nothing.
func (a *app) tell(s string) { _, _ = io.WriteString(a.env.Stderr, s) }
