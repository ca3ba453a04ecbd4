package cli

import (
	"google.golang.org/grpc/codes"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// reasonCodes are the gRPC codes that errors.proto gives each reason. A status
// carries its code; an Issue inside an answer has the reason alone. Never
// written to.
var reasonCodes = map[string]codes.Code{
	"LISTENER_NOT_FOUND":      codes.NotFound,
	"LISTENER_ALREADY_EXISTS": codes.AlreadyExists,
	"ADDRESS_IN_USE":          codes.FailedPrecondition,
	"ADDRESS_NOT_AVAILABLE":   codes.FailedPrecondition,
	"CAPABILITY_MISSING":      codes.PermissionDenied,
	"ROLE_MISSING":            codes.PermissionDenied,
	"POLICY_DENIED":           codes.PermissionDenied,
	"OPTION_UNKNOWN":          codes.InvalidArgument,
	"OPTION_UNSUPPORTED":      codes.Unimplemented,
	"OPTION_NEEDS_REBIND":     codes.FailedPrecondition,
	"ETAG_MISMATCH":           codes.Aborted,
	"REVISION_COMPACTED":      codes.OutOfRange,
	"STATE_INVALID":           codes.FailedPrecondition,
	"LIMIT_REACHED":           codes.ResourceExhausted,
	"CONNECTION_NOT_FOUND":    codes.NotFound,
	"MANAGER_CONFLICT":        codes.FailedPrecondition,
	"SPEC_INVALID":            codes.InvalidArgument,
	"TLS_INVALID":             codes.FailedPrecondition,
	"DAEMON_DRAINING":         codes.Unavailable,
	"FILTER_INVALID":          codes.InvalidArgument,
	"PAGE_TOKEN_INVALID":      codes.InvalidArgument,
	"STORE_FAILED":            codes.Internal,
	"INTERNAL":                codes.Internal,
	"CHANGE_NOT_FOUND":        codes.NotFound,
	"SOCKET_NOT_FOUND":        codes.NotFound,
	"SOCKET_CALL_FAILED":      codes.FailedPrecondition,
	"TIMED_OUT":               codes.DeadlineExceeded,
	"UPGRADE_RUNNING":         codes.FailedPrecondition,
	"UPGRADE_FAILED":          codes.FailedPrecondition,
}

// issueFailure makes of a problem inside an answer what a status would be.
func issueFailure(i *pb.Issue) *failure {
	c, ok := reasonCodes[i.GetCode()]
	if !ok {
		c = codes.Unknown
	}
	f := failf(c, "%s", i.GetMessage())
	f.reason = i.GetCode()
	return f
}
