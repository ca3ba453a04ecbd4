package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"golang.org/x/sys/unix"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// domain is that of every ErrorInfo.
const domain = "sockmgr"

// reasonCodes is the one table of reasons and their codes, as errors.proto says.
var reasonCodes = map[listeners.Reason]codes.Code{
	listeners.ListenerNotFound:      codes.NotFound,
	listeners.ListenerAlreadyExists: codes.AlreadyExists,
	listeners.AddressInUse:          codes.FailedPrecondition,
	listeners.AddressNotAvailable:   codes.FailedPrecondition,
	listeners.CapabilityMissing:     codes.PermissionDenied,
	listeners.RoleMissing:           codes.PermissionDenied,
	listeners.PolicyDenied:          codes.PermissionDenied,
	listeners.OptionUnknown:         codes.InvalidArgument,
	listeners.OptionUnsupported:     codes.Unimplemented,
	listeners.OptionNeedsRebind:     codes.FailedPrecondition,
	listeners.EtagMismatch:          codes.Aborted,
	listeners.RevisionCompacted:     codes.OutOfRange,
	listeners.StateInvalid:          codes.FailedPrecondition,
	listeners.LimitReached:          codes.ResourceExhausted,
	listeners.ConnectionNotFound:    codes.NotFound,
	listeners.ManagerConflict:       codes.FailedPrecondition,
	listeners.SpecInvalid:           codes.InvalidArgument,
	listeners.TLSInvalid:            codes.FailedPrecondition,
	listeners.DaemonDraining:        codes.Unavailable,
	listeners.FilterInvalid:         codes.InvalidArgument,
	listeners.PageTokenInvalid:      codes.InvalidArgument,
	listeners.StoreFailed:           codes.Internal,
	listeners.Internal:              codes.Internal,
	listeners.ChangeNotFound:        codes.NotFound,
	listeners.SocketNotFound:        codes.NotFound,
	listeners.SocketCallFailed:      codes.FailedPrecondition,
	listeners.TimedOut:              codes.DeadlineExceeded,
	listeners.UpgradeRunning:        codes.FailedPrecondition,
	listeners.UpgradeFailed:         codes.FailedPrecondition,
}

// toStatus maps an error by its class, however it is wrapped.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the caller went away")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "time ran out")
	}
	info := &errdetails.ErrorInfo{Domain: domain, Reason: string(listeners.Internal), Metadata: map[string]string{}}
	details := []protoadapt.MessageV1{info}
	var fault *listeners.Fault
	var invalid *manager.Invalid
	var violation *listeners.Violation
	switch {
	case errors.As(err, &fault):
		info.Reason = string(fault.Reason)
		maps.Copy(info.Metadata, fault.Meta)
		if fault.Field != "" {
			info.Metadata["field"] = fault.Field
		}
		if fault.Fix != "" {
			info.Metadata["fix"] = fault.Fix
		}
	case errors.As(err, &invalid):
		info.Reason = string(invalid.Reason())
		if near := invalid.Violations[0].Nearest; near != "" {
			info.Metadata["nearest"] = near
		}
		details = append(details, badRequest(invalid.Violations))
	case errors.As(err, &violation):
		err = &manager.Invalid{Violations: []*listeners.Violation{violation}}
		return toStatus(err)
	}
	if part, ok := errors.AsType[*manager.PartError](err); ok {
		info.Metadata["listener"] = part.Listener
		if invalid != nil {
			info.Metadata["field"] = invalid.Violations[0].Field
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		info.Metadata["errno"], info.Metadata["errno_number"] = unix.ErrnoName(errno), strconv.Itoa(int(errno))
		if info.Reason == string(listeners.Internal) {
			info.Reason = string(errnoReason(errno))
		}
	}
	for k, v := range info.Metadata {
		info.Metadata[k] = clip(v, maxDescription)
	}
	st, errDetails := status.New(reasonCodes[listeners.Reason(info.Reason)], messageOf(err, fault)).WithDetails(details...)
	if errDetails != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return st.Err()
}

// errnoReason is for system calls that have no Fault of their own.
func errnoReason(errno syscall.Errno) listeners.Reason {
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		return listeners.LimitReached
	case unix.EPERM, unix.EACCES:
		return listeners.CapabilityMissing
	case unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENODEV:
		return listeners.SpecInvalid
	default:
		return listeners.Internal
	}
}

// messageOf leaves out the system's words where the Fault has said it better.
func messageOf(err error, fault *listeners.Fault) string {
	text := err.Error()
	if fault != nil && fault.Err != nil && strings.Contains(fault.Message, "(E") {
		text = strings.TrimSuffix(text, ": "+fault.Err.Error())
	}
	return clip(text, maxDescription)
}

// An error travels in HTTP/2 headers, of which many clients take 8 KiB in all,
// and it quotes what was sent.
const (
	maxDescription = 400     // bytes of one text
	maxDetails     = 3 << 10 // bytes of all violations; more are counted only
)

// clip shortens a text in the middle: its beginning says what it is about, its
// end what is wrong.
func clip(s string, most int) string {
	if len(s) > most {
		s = s[:most*2/3] + " ... " + s[len(s)-most/3:]
	}
	return strings.ToValidUTF8(s, "?")
}

func badRequest(violations []*listeners.Violation) *errdetails.BadRequest {
	b := &errdetails.BadRequest{}
	for i, v := range violations {
		reason := v.Reason
		if reason == "" {
			reason = listeners.SpecInvalid
		}
		next := &errdetails.BadRequest_FieldViolation{
			Field: clip(v.Field, maxDescription/2), Description: clip(v.Message, maxDescription), Reason: string(reason),
		}
		if proto.Size(b)+proto.Size(next) > maxDetails {
			last := b.GetFieldViolations()[i-1]
			last.Description += fmt.Sprintf(" (and %d more)", len(violations)-i)
			break
		}
		b.FieldViolations = append(b.FieldViolations, next)
	}
	return b
}
