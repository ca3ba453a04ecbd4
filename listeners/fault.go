package listeners

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A Reason is the stable name of why a request was refused. The names are
// those of ErrorReason in errors.proto. A Reason is an error, so that
// errors.Is(err, AddressInUse) asks for a class.
type Reason string

// The reasons, each with what it means.
const (
	ListenerNotFound      Reason = "LISTENER_NOT_FOUND"
	ListenerAlreadyExists Reason = "LISTENER_ALREADY_EXISTS"
	AddressInUse          Reason = "ADDRESS_IN_USE"
	AddressNotAvailable   Reason = "ADDRESS_NOT_AVAILABLE"
	CapabilityMissing     Reason = "CAPABILITY_MISSING"
	RoleMissing           Reason = "ROLE_MISSING"
	PolicyDenied          Reason = "POLICY_DENIED"
	OptionUnknown         Reason = "OPTION_UNKNOWN"
	OptionUnsupported     Reason = "OPTION_UNSUPPORTED"
	OptionNeedsRebind     Reason = "OPTION_NEEDS_REBIND"
	EtagMismatch          Reason = "ETAG_MISMATCH"
	RevisionCompacted     Reason = "REVISION_COMPACTED"
	StateInvalid          Reason = "STATE_INVALID"
	LimitReached          Reason = "LIMIT_REACHED"
	ConnectionNotFound    Reason = "CONNECTION_NOT_FOUND"
	ManagerConflict       Reason = "MANAGER_CONFLICT"
	SpecInvalid           Reason = "SPEC_INVALID"
	TLSInvalid            Reason = "TLS_INVALID"
	DaemonDraining        Reason = "DAEMON_DRAINING"
	FilterInvalid         Reason = "FILTER_INVALID"
	PageTokenInvalid      Reason = "PAGE_TOKEN_INVALID"
	StoreFailed           Reason = "STORE_FAILED"
	Internal              Reason = "INTERNAL"
	ChangeNotFound        Reason = "CHANGE_NOT_FOUND"
	SocketNotFound        Reason = "SOCKET_NOT_FOUND"
	SocketCallFailed      Reason = "SOCKET_CALL_FAILED"
	TimedOut              Reason = "TIMED_OUT"
	UpgradeRunning        Reason = "UPGRADE_RUNNING"
	UpgradeFailed         Reason = "UPGRADE_FAILED"
)

// Error returns the reason in words.
func (r Reason) Error() string {
	return strings.ToLower(strings.ReplaceAll(string(r), "_", " "))
}

// A Fault is a refused request: what was tried, why it failed and what to do.
type Fault struct {
	Reason  Reason
	Message string            // one sentence, names what was tried
	Fix     string            // what would help, if that is known
	Meta    map[string]string // facts for scripts
	Field   string            // path of the field it is about, if of one: spec.options.mark
	Err     error             // the system's own error, if there was one
}

// Error returns the message, then the system's own words unless the message
// names the errno already.
func (f *Fault) Error() string {
	if f.Err == nil || strings.Contains(f.Message, "(E") {
		return f.Message
	}
	text := f.Message + ": " + f.Err.Error()
	if errno, ok := errors.AsType[unix.Errno](f.Err); ok {
		text += " (" + unix.ErrnoName(errno) + ")"
	}
	return text
}

// Unwrap gives errors.Is and errors.As the system's error.
func (f *Fault) Unwrap() error { return f.Err }

// Is reports whether target is the fault's Reason.
func (f *Fault) Is(target error) bool {
	r, ok := target.(Reason)
	return ok && r == f.Reason
}

// named says which listener an error is about.
func named(name string, err error) error {
	if f, ok := errors.AsType[*Fault](err); ok {
		f.Message = name + ": " + f.Message
		return f
	}
	return fmt.Errorf("%s: %w", name, err)
}

// A Violation is one field of a request that is not as it must be.
type Violation struct {
	Field   string // path in the request: spec.listen[0], spec.options.backlog
	Message string
	Reason  Reason // SpecInvalid when empty
	Nearest string // the name that was probably meant, of one that is not known
}

// Error returns field and message.
func (v *Violation) Error() string { return v.Field + ": " + v.Message }

// Is reports whether target is the violation's Reason.
func (v *Violation) Is(target error) bool {
	r, ok := target.(Reason)
	return ok && (r == v.Reason || r == SpecInvalid && v.Reason == "")
}

// Violations returns all violations joined in err, in order.
func Violations(err error) []*Violation {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Violation
		for _, e := range joined.Unwrap() {
			all = append(all, Violations(e)...)
		}
		return all
	}
	if v, ok := errors.AsType[*Violation](err); ok {
		return []*Violation{v}
	}
	return nil
}
