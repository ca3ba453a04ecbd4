package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// A batch is one verb on several names: all are done, each error is shown as
// it comes, and the exit code says how it went as a whole.
type batch struct {
	a     *app
	done  int
	fails []*failure
	kept  []*pb.Listener // for the one answer that JSON and YAML are
}

// each runs do for every name.
func (a *app) each(ctx context.Context, names []string, do func(name string) error) error {
	b := batch{a: a}
	for _, name := range names {
		err := do(name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.fail(name, err)
		} else {
			b.done++
		}
	}
	return b.failure()
}

// ok says that a listener is now as the word says.
func (b *batch) ok(l *pb.Listener, word string) error {
	b.done++
	if b.a.structured() {
		b.kept = append(b.kept, l)
		return nil
	}
	id := listenerID(l.GetName())
	return b.a.print(view{
		names: []string{id},
		text: func(w *bytes.Buffer, _ bool) {
			w.WriteString(clean(strings.TrimSpace(id+" "+word)) + "\n")
		},
	})
}

// fail shows why the verb failed on one name.
func (b *batch) fail(name string, err error) {
	f := b.a.explain(err)
	switch {
	case f.exit == exitNoDaemon:
		f.shown = len(b.fails) > 0 && b.fails[0].exit == exitNoDaemon // it is about no name: once will do
	case !mentions(f.message, name[strings.LastIndex(name, "/")+1:]):
		f.message = name + ": " + f.message
	}
	b.fails = append(b.fails, f)
	if b.a.output == "json" {
		b.a.hold(f)
		return
	}
	b.a.printFailure(f)
}

// mentions reports whether name is a word of message, or a part of it that no
// word can be: an address, listeners/web.
func mentions(message, name string) bool {
	if strings.ContainsAny(name, ":/") {
		return strings.Contains(message, name)
	}
	words := strings.FieldsFunc(message, func(r rune) bool {
		return !strings.ContainsRune("._-", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	return slices.ContainsFunc(words, func(w string) bool { return strings.Trim(w, ".") == name })
}

// finish prints what was kept and returns how it went.
func (b *batch) finish() error {
	if b.a.structured() && (b.done > 0 || len(b.fails) == 0) {
		kept := b.kept
		if err := b.a.print(view{tree: func() any { return list("listeners", kept) }}); err != nil {
			return err
		}
	}
	return b.failure()
}

// failure is the whole of it: nil when all is done, the common exit code when
// all failed alike, exitPartDone when part is done.
func (b *batch) failure() error {
	if len(b.fails) == 0 {
		return nil
	}
	f := &failure{
		exit: commonExit(b.fails), shown: true,
		message: fmt.Sprintf("%d of %d failed", len(b.fails), b.done+len(b.fails)),
	}
	if b.done > 0 {
		f.exit = exitPartDone
	}
	return f
}

// commonExit is the exit code of what failed alike, else exitFailed.
func commonExit(fails []*failure) int {
	exit := fails[0].exit
	for _, f := range fails {
		if f.exit != exit {
			return exitFailed
		}
	}
	return exit
}
