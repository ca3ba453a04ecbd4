package cli

import (
	"bytes"

	"google.golang.org/grpc/codes"
)

// With -o json stderr is one object, or nothing: a program reads it whole. So
// the errors of a batch and all notes wait for the end.

// mostNotes bounds what waits.
const mostNotes = 100

// hold keeps an error of a part until the whole is known.
func (a *app) hold(f *failure) {
	if !f.shown {
		f.shown = true
		a.held = append(a.held, f)
	}
}

// whole makes one failure of f, which ended the command, and of what was held.
func (a *app) whole(f *failure) *failure {
	switch {
	case len(a.held) == 1 && f.shown && f.exit == a.held[0].exit:
		f = a.held[0]
	case len(a.held) > 0:
		f.parts = append(f.parts, a.held...)
		f.alike()
	}
	if len(a.held) > 0 {
		f.shown = false
	}
	a.held = nil
	if !f.shown {
		f.notes, a.notes = append(f.notes, a.notes...), nil
	}
	return f
}

// alike gives f the code and the reason of its parts where they have the same,
// unless it has its own.
func (f *failure) alike() {
	if f.code != codes.OK || f.reason != "" {
		return
	}
	f.code, f.reason = f.parts[0].code, f.parts[0].reason
	for _, part := range f.parts {
		if part.code != f.code {
			f.code = codes.Unknown
		}
		if part.reason != f.reason {
			f.reason = ""
		}
	}
}

// printNotes writes the notes that no error has taken along.
func (a *app) printNotes() {
	if len(a.notes) == 0 {
		return
	}
	var b bytes.Buffer
	writeJSON(&b, object{{"notes", texts(a.notes)}}, "")
	b.WriteByte('\n')
	a.notes = nil
	a.tell(b.String())
}

func texts(all []string) []any {
	list := make([]any, len(all))
	for i, s := range all {
		list[i] = s
	}
	return list
}
