package service

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

// A callNote is what the audit has of a call beside its request and its answer.
// Methods add to it while the call runs.
type callNote struct {
	id string // of the request

	mu      sync.Mutex
	later   []func(*callNote) // add changes, when they are asked for
	changes []string
	more    int  // changes that did not fit
	again   bool // it is answered as it was before: nothing is changed twice
}

type noteKey struct{}

func noteOf(ctx context.Context) *callNote {
	n, _ := ctx.Value(noteKey{}).(*callNote)
	return n
}

// noted returns a context of a call that is in the audit; new ones have an id of
// the daemon's.
func noted(ctx context.Context) context.Context {
	if noteOf(ctx) != nil {
		return ctx
	}
	return context.WithValue(ctx, noteKey{}, &callNote{id: rand.Text()})
}

// add notes a change. What is the same is none.
func (n *callNote) add(path, before, after string) { n.addOf("", path, before, after) }

// addOf is add, of something that has a name if that is not all a call is about. Of
// thousands most are counted only, and take no words.
func (n *callNote) addOf(name, path, before, after string) {
	if n == nil || before == after {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.changes) == auditChanges {
		n.more++
		return
	}
	if name != "" {
		path = name + " " + path
	}
	n.changes = append(n.changes, fmt.Sprintf("%s: %s -> %s", clip(path, auditText), clip(before, auditText), clip(after, auditText)))
}

// count counts changes if there is no room for them, and reports whether that is so.
func (n *callNote) count(changes int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if changes == 0 {
		return true
	}
	if len(n.changes) < auditChanges {
		return false
	}
	n.more += changes
	return true
}

// all are the changes, and how many more there are.
func (n *callNote) all() []string {
	n.mu.Lock()
	later := n.later
	n.later = nil
	n.mu.Unlock()
	for _, add := range later {
		add(n)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.more > 0 {
		return append(slices.Clip(n.changes), fmt.Sprintf("and %d more", n.more))
	}
	return n.changes
}

// noteChange notes what a call has changed, from what to what.
func noteChange(ctx context.Context, path, before, after string) {
	noteOf(ctx).add(path, before, after)
}

// noteLater has f add changes when somebody reads them: most are never read, and to
// put them into words takes longer than to make them.
func noteLater(ctx context.Context, f func(*callNote)) {
	if n := noteOf(ctx); n != nil {
		n.mu.Lock()
		n.later = append(n.later, f)
		n.mu.Unlock()
	}
}

// noteAgain notes that a call is answered from memory.
func noteAgain(ctx context.Context) {
	if n := noteOf(ctx); n != nil {
		n.mu.Lock()
		n.again = true
		n.mu.Unlock()
	}
}

// before is what a listener was right before it changed.
type before struct{ was *manager.Info }

// noListener is what one was that there was not: it has no fields.
var noListener manager.Info

// noticing returns a context with which the manager tells what a listener was
// right before it changed.
func noticing(ctx context.Context) (context.Context, *before) {
	b := &before{&noListener}
	return manager.WithBefore(ctx, func(i *manager.Info) { b.was = i }), b
}

// noteStep notes what a listener does now that it did not do before, and returns it
// as the answer has it.
func noteStep(ctx context.Context, b *before, is manager.Info) *pb.Listener {
	now, state, resume := infoToPB(is), is.State, is.ResumeAt // and not is, which is large
	noteLater(ctx, func(n *callNote) {
		n.add("state", b.was.State.String(), state.String())
		n.addFields("", fieldChanges(infoToPB(*b.was), now))
		n.add("resume_time", timeText(b.was.ResumeAt), timeText(resume))
	})
	return now
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339)
}

// addFields notes the differences of a listener.
func (n *callNote) addFields(name string, changes []*pb.FieldChange) {
	for _, c := range changes {
		n.addOf(name, c.GetPath(), c.GetBefore(), c.GetAfter())
	}
}

// identified adds the id of a call to its error, by which it is found in the
// audit.
func identified(ctx context.Context, err error) error {
	id := requestIDOf(ctx)
	if err == nil || id == "" {
		return err
	}
	st, _ := status.FromError(toStatus(err))
	if with, failed := st.WithDetails(&errdetails.RequestInfo{RequestId: id}); failed == nil {
		return with.Err()
	}
	return err
}
