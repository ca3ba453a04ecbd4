package manager

import (
	"fmt"

	"github.com/sockmgr/sockmgr/listeners"
)

// A Note is something that a client should know of a change that was made.
type Note struct {
	Code    string // CLAMPED
	Field   string
	Message string
}

func notesOf(l *listeners.Listener) []Note {
	var notes []Note
	for _, r := range l.Notes() {
		notes = append(notes, clampNote(r))
	}
	return notes
}

func clampNote(r listeners.Result) Note {
	return Note{
		Code: "CLAMPED", Field: "spec.options." + r.Option.Name,
		Message: fmt.Sprintf("%s is %v, not %v: %s", r.Option.Name, r.Effective, r.Requested, r.Message),
	}
}
