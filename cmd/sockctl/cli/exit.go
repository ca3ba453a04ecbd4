package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes; scripts are written against them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 4
	exitNotAllowed  = 5
	exitTaken       = 6
	exitCannotNow   = 7
	exitNoDaemon    = 8
	exitTimeout     = 9
	exitPartDone    = 10
	exitUnknownHere = 12
	exitInterrupted = 130
)

// exitOf is the one table from gRPC codes to exit codes; what is not in it is
// exitFailed. Never written to.
var exitOf = map[codes.Code]int{
	codes.OK:                 exitDone,
	codes.Internal:           exitFailed,
	codes.Unknown:            exitFailed,
	codes.InvalidArgument:    exitUsage,
	codes.OutOfRange:         exitUsage,
	codes.NotFound:           exitNotFound,
	codes.PermissionDenied:   exitNotAllowed,
	codes.Unauthenticated:    exitNotAllowed,
	codes.AlreadyExists:      exitTaken,
	codes.Aborted:            exitTaken,
	codes.FailedPrecondition: exitCannotNow,
	codes.ResourceExhausted:  exitCannotNow,
	codes.Unavailable:        exitNoDaemon,
	codes.DeadlineExceeded:   exitTimeout,
	codes.Unimplemented:      exitUnknownHere,
}

// askAbout are the reasons for which somebody else is asked, who finds the call in
// the audit by its id. Never written to.
var askAbout = map[string]bool{"ROLE_MISSING": true, "POLICY_DENIED": true, "STORE_FAILED": true, "INTERNAL": true}

// failure is an error with everything the user gets to see of it.
type failure struct {
	exit       int
	code       codes.Code // OK when no gRPC code says it
	reason     string
	request    string // id of the call, by which the audit knows it
	message    string
	metadata   map[string]string
	violations []*errdetails.BadRequest_FieldViolation
	parts      []*failure // of a whole that failed in several ways
	notes      []string
	shown      bool // printed already, only the exit code is left
}

// Error returns the message.
func (f *failure) Error() string { return f.message }

// try sets what would help.
func (f *failure) try(fix string) *failure { return f.with("fix", fix) }

// with adds a fact for scripts.
func (f *failure) with(key, value string) *failure {
	if f.metadata == nil {
		f.metadata = map[string]string{}
	}
	f.metadata[key] = value
	return f
}

// failf is a failure that the client finds itself.
func failf(c codes.Code, format string, args ...any) *failure {
	f := &failure{exit: exitFailed, code: c, message: fmt.Sprintf(format, args...)}
	if exit, ok := exitOf[c]; ok {
		f.exit = exit
	}
	return f
}

// usagef is a request that cannot be meant.
func usagef(format string, args ...any) *failure {
	return failf(codes.InvalidArgument, format, args...)
}

// asFailure returns the failure in err, nil if there is none.
func asFailure(err error) *failure {
	f, _ := errors.AsType[*failure](err)
	return f
}

// explain makes a failure of any error that is not nil.
func (a *app) explain(err error) *failure {
	if f := asFailure(err); f != nil {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = status.FromContextError(err).Err()
	}
	st, ok := status.FromError(err)
	if !ok {
		return failf(codes.Unknown, "%s", err)
	}
	f := failf(st.Code(), "%s", st.Message())
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			f.reason, f.metadata = d.GetReason(), d.GetMetadata()
		case *errdetails.RequestInfo:
			f.request = d.GetRequestId()
		case *errdetails.BadRequest:
			f.violations = append(f.violations, d.GetFieldViolations()...)
		}
	}
	if f.reason != "" || a.client == nil {
		return f
	}
	return a.transport(f)
}

// transport puts into words what grpc, not the daemon, says: it gives no reason.
func (a *app) transport(f *failure) *failure {
	addr := a.client.addr
	if f.code == codes.Unavailable && a.client.lastDialError() == nil && strings.Contains(f.message, "tls: ") {
		_, why, _ := strings.Cut(f.message, "tls: ")
		return failf(codes.Unauthenticated, "%s and this client do not agree on certificates: %s", addr, strings.TrimSuffix(why, `"`)).with("address", addr).
			try("--cert, --key and --ca: files that belong together, of an authority that the daemon knows")
	}
	if f.code == codes.Unavailable {
		return unreachable(addr, f.message, a.client.lastDialError())
	}
	tooLarge := f.code == codes.ResourceExhausted && strings.Contains(f.message, "larger than max")
	switch {
	case tooLarge && strings.Contains(f.message, fmt.Sprintf("vs. %d)", maxAnswer)):
		f.message = "the answer is larger than sockctl takes: " + f.message
	case tooLarge:
		f.message = "the request is larger than the daemon takes, body and data included: " + f.message
	case f.code == codes.DeadlineExceeded:
		f.message = fmt.Sprintf("no answer from %s within %s", addr, a.timeout)
	case f.code == codes.Unimplemented:
		f.message = fmt.Sprintf("the daemon at %s does not know this call, it may be of another release: %s", addr, f.message)
	}
	return f
}

// unreachable tells apart a daemon that was lost, one that is not for this
// user, and none at all.
func unreachable(addr, message string, dialErr error) *failure {
	switch {
	case dialErr == nil:
		return failf(codes.Unavailable, "lost the daemon at %s: %s", addr, message).with("address", addr)
	case errors.Is(dialErr, fs.ErrPermission):
		return failf(codes.PermissionDenied, "not allowed to open %s (%s)", addr, systemWords(dialErr)).with("address", addr).
			try("sudo sockctl, or --addr for a daemon of your own")
	}
	return failf(codes.Unavailable, "no daemon answers at %s (%s)", addr, systemWords(dialErr)).with("address", addr).
		try("sockmgr --control " + addr + " to start one, or --addr for one that listens elsewhere")
}

// printFailure writes f to stderr for people, or with -o json for programs.
func (a *app) printFailure(f *failure) {
	if f.shown {
		return
	}
	f.shown = true
	var b bytes.Buffer
	if a.output == "json" {
		writeJSON(&b, object{{"error", f.tree()}}, "")
		b.WriteByte('\n')
	} else {
		f.text(&b)
	}
	a.tell(b.String())
}

func (f *failure) text(b *bytes.Buffer) {
	for i, line := range strings.Split(strings.TrimSpace(f.message), "\n") {
		b.WriteString([]string{"Error: ", "  "}[min(i, 1)] + clean(line) + "\n")
	}
	if fix := f.metadata["fix"]; fix != "" {
		b.WriteString("  try  " + clean(fix) + "\n")
	}
	if len(f.violations) > 1 {
		for _, v := range f.violations {
			b.WriteString("  " + clean(v.GetField()+": "+v.GetDescription()) + "\n")
		}
	}
	if f.request != "" && askAbout[f.reason] {
		b.WriteString("  request  " + clean(f.request) + "\n")
	}
	if f.reason != "" {
		b.WriteString("  reason " + clean(f.reason) + "\n")
	}
}

func (f *failure) tree() object {
	t := object{{"exitCode", int64(f.exit)}}
	if f.code != codes.OK {
		t = append(t, member{"code", code.Code(f.code).String()})
	}
	if f.reason != "" {
		t = append(t, member{"reason", f.reason})
	}
	if f.request != "" {
		t = append(t, member{"requestId", f.request})
	}
	t = append(t, member{"message", f.message})
	if len(f.metadata) > 0 {
		t = append(t, member{"metadata", mapTree(f.metadata, func(v string) any { return v })})
	}
	if len(f.parts) > 0 {
		var list []any
		for _, part := range f.parts {
			list = append(list, part.tree())
		}
		t = append(t, member{"errors", list})
	}
	if len(f.notes) > 0 {
		t = append(t, member{"notes", texts(f.notes)})
	}
	if len(f.violations) > 0 {
		var list []any
		for _, v := range f.violations {
			o := object{{"field", v.GetField()}, {"description", v.GetDescription()}}
			if v.GetReason() != "" {
				o = append(o, member{"reason", v.GetReason()})
			}
			list = append(list, o)
		}
		t = append(t, member{"fieldViolations", list})
	}
	return t
}
