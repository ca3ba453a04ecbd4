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
func (n *callNote) add(path, before, after string) {
	if n == nil || before == after {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.changes) == auditChanges {
		n.more++
		return
	}
	n.changes = append(n.changes, fmt.Sprintf("%s: %s -> %s", clip(path, auditText), clip(before, auditText), clip(after, auditText)))
}

// all are the changes, and how many more there are.
func (n *callNote) all() []string {
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

// noteAgain notes that a call is answered from memory.
func noteAgain(ctx context.Context) {
	if n := noteOf(ctx); n != nil {
		n.mu.Lock()
		n.again = true
		n.mu.Unlock()
	}
}

// noticing returns a context with which the manager tells what a listener was
// right before it changed. One that there was not has no fields.
func noticing(ctx context.Context) (context.Context, *manager.Info) {
	was := &manager.Info{}
	return manager.WithBefore(ctx, func(i manager.Info) { *was = i }), was
}

// noteStep notes what a listener does now that it did not do before.
func noteStep(ctx context.Context, was, is manager.Info) {
	noteChange(ctx, "state", was.State.String(), is.State.String())
	for _, c := range fieldChanges(infoToPB(was), infoToPB(is)) {
		noteChange(ctx, c.GetPath(), c.GetBefore(), c.GetAfter())
	}
	noteChange(ctx, "resume_time", timeText(was.ResumeAt), timeText(is.ResumeAt))
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339)
}

// noteFields notes the differences of a listener.
func noteFields(ctx context.Context, prefix string, changes []*pb.FieldChange) {
	for _, c := range changes {
		noteChange(ctx, prefix+c.GetPath(), c.GetBefore(), c.GetAfter())
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
